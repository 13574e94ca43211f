//! Where requests may go: to the world, and inward only where the operator said so.
//!
//! Who may install an app writes its address, and must not turn the worker into a way into its own network: its
//! loopback, its neighbours, the metadata of its cloud. An address is judged as it stands in the URL, and every address
//! that a name resolves to before a connection is made to it.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::Verdict;
use crate::message::AttemptStatus;

/// IPv4 that is not of the world: the registry of special purposes of IANA, with multicast, what is reserved, and the
/// host of Azure's virtual machines.
const INWARD_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::LOCALHOST, 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The only IPv6 of the world: all of loopback, unique local, link local and multicast is outside.
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is not of the world within: protocol assignments with Teredo, and documentation.
const INWARD_V6: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Networks, as `10.0.0.0/8,192.168.7.9`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = |word: &str| match word.parse::<IpAddr>() {
            Ok(address) => Ok(IpNet::from(address)),
            Err(_) => {
                word.parse::<IpNet>().map_err(|_| format!("{word:?} is no network; write 10.0.0.0/8,192.168.7.9"))
            }
        };
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl Networks {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether a request may go to this address.
    pub fn admit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.contains(address) || !is_inward(address)
    }
}

/// Whether an address is one of this machine, its neighbours or its provider, rather than one of the world.
pub fn is_inward(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            INWARD_V4.iter().any(|(network, bits)| Ipv4Net::new_assert(*network, *bits).contains(&address))
        }
        IpAddr::V6(address) => match embedded(address) {
            Some(within) => is_inward(within.into()),
            None => {
                let among = |(network, bits): &(Ipv6Addr, u8)| Ipv6Net::new_assert(*network, *bits).contains(&address);
                !among(&GLOBAL_V6) || INWARD_V6.iter().any(among)
            }
        },
    }
}

/// The IPv4 that a translator or a tunnel makes of an IPv6: NAT64 (RFC 6052) and 6to4 (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (a, b) {
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => Some(v4(g, h)),
        (0x2002, _) => Some(v4(b, c)),
        _ => None,
    }
}

/// Where a URL leads, as far as it says so itself.
#[derive(Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    /// A name of this machine, whatever a resolver says.
    Localhost,
    Name,
}

fn host(url: &Url) -> Host {
    // A URL of http or https has its addresses in one writing: 0x7f.1 and 2130706433 became 127.0.0.1 when it was parsed.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) => Host::Address(address.to_canonical()),
        Err(_) if is_localhost(host) => Host::Localhost,
        Err(_) => Host::Name,
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a URL names this very machine: `127.0.0.1`, `[::1]`, `localhost`.
pub fn is_loopback(url: &Url) -> bool {
    match host(url) {
        Host::Address(address) => address.is_loopback(),
        Host::Localhost => true,
        Host::Name => false,
    }
}

/// Whether a request may be begun: what can be said before a name is resolved. With `to_loopback` a URL may name this
/// very machine, as that of the pretend provider does.
pub fn may_begin(url: &Url, to_loopback: bool, allowed: &Networks) -> bool {
    match host(url) {
        Host::Address(address) => to_loopback && address.is_loopback() || allowed.admit(address),
        Host::Localhost => to_loopback || loopback().into_iter().any(|address| allowed.contains(address)),
        Host::Name => true,
    }
}

fn loopback() -> [IpAddr; 2] {
    [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
}

/// No address that a name has may be connected to.
#[derive(Debug)]
pub struct NotAllowed;

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no address of the name is allowed")
    }
}

impl StdError for NotAllowed {}

/// How an attempt ends that would have gone where it must not.
pub fn refused() -> Verdict {
    Verdict::ended(
        AttemptStatus::RefusedAccount,
        "address_not_allowed",
        "The app's address leads into this worker's own network, so nothing was sent; an operator can allow it with --allow-address.",
    )
}

/// The system's resolver, of whose answers only those count that a request may go to: the connection is then made to
/// these very addresses, so that a name cannot be looked up once to be judged and again to be connected to.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    pub(super) allowed: Networks,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = self.allowed.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(admitted(name.as_str(), found, &allowed)?.into_iter()) as Addrs)
        })
    }
}

/// Those that a request may go to. That a request may name this very machine was said before: see [`may_begin`].
pub(super) fn admitted(name: &str, found: Vec<SocketAddr>, allowed: &Networks) -> Result<Vec<SocketAddr>, NotAllowed> {
    let was_empty = found.is_empty();
    let local = is_localhost(name);
    let may = |at: &SocketAddr| allowed.admit(at.ip()) || local && at.ip().to_canonical().is_loopback();
    let admitted: Vec<SocketAddr> = found.into_iter().filter(may).collect();
    if admitted.is_empty() && !was_empty { Err(NotAllowed) } else { Ok(admitted) }
}

#[cfg(test)]
mod tests;
