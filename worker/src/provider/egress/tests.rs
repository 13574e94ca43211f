use super::*;
use proptest::prelude::*;

fn networks(text: &str) -> Networks {
    text.parse().unwrap()
}

fn begins(url: &str, to_loopback: bool, allowed: &str) -> bool {
    may_begin(&Url::parse(url).unwrap(), to_loopback, &networks(allowed))
}

#[test]
fn nothing_inward_in_any_writing() {
    for host in [
        // This machine: dotted, decimal, octal, hexadecimal, short, with a trailing dot, in full-width digits.
        "127.0.0.1",
        "127.9.9.9",
        "2130706433",
        "0177.0.0.1",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "127.0.0.1.",
        "１２７．０．０．１",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        // Neighbours, carriers, links.
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.127.255.254",
        "198.18.0.1",
        "[fc00::1]",
        "[fd12::1]",
        "[fe80::1]",
        "[fec0::1]",
        // Metadata of clouds.
        "169.254.169.254",
        "0xa9fea9fe",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        // Everybody, nobody, examples.
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "240.0.0.1",
        "[ff02::1]",
        "192.0.2.1",
        "203.0.113.9",
        "[2001:db8::1]",
        "[100::1]",
        // IPv4 in the clothes of IPv6: mapped, compatible, NAT64, local NAT64, 6to4, Teredo.
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]",
        "[2002:a9fe:a9fe::1]",
        "[2001:0:7f00:1::]",
    ] {
        for url in [format!("https://{host}/"), format!("http://{host}:8025/x"), format!("https://name@{host}:443/")] {
            assert!(!begins(&url, false, ""), "{url}");
        }
    }
}

#[test]
fn the_world_is_open() {
    for host in [
        "8.8.8.8",
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "11.0.0.1",
        "[2606:4700::1111]",
        "[2a00:1450:4001::1]",
        "[64:ff9b::8.8.8.8]",
        "[2002:808:808::1]",
        "[::ffff:8.8.8.8]",
        "api.twilio.com",
        "localhost.example.com",
        "127.0.0.1.nip.io",
        "xn--mgbh0fb.example",
        "رسائل.example",
    ] {
        assert!(begins(&format!("https://{host}/"), false, ""), "{host}");
    }
}

#[test]
fn the_operator_opens_networks() {
    assert!(begins("https://10.1.2.3/", false, "10.0.0.0/8, fd00::/8"));
    assert!(begins("https://[::ffff:10.1.2.3]/", false, "10.0.0.0/8"));
    assert!(begins("https://[fd12::1]/", false, "10.0.0.0/8, fd00::/8"));
    assert!(begins("http://localhost:1/", false, "127.0.0.1"));
    assert!(!begins("https://10.1.2.3/", false, "10.1.2.4,192.168.0.0/16"));
    // Only this machine, and only where the URL says so itself.
    assert!(
        begins("http://127.0.0.1:1/", true, "")
            && begins("http://localhost/", true, "")
            && begins("http://[::1]/", true, "")
    );
    assert!(!begins("http://10.1.2.3/", true, "") && !begins("http://0.0.0.0/", true, ""));
    for bad in ["10.0.0.0/33", "here", "10.0.0", "::1/129"] {
        assert!(bad.parse::<Networks>().is_err(), "{bad}");
    }
    assert_eq!(networks(""), Networks::default());
}

/// What a resolver of somebody else's may say, now and at the next look.
#[test]
fn answers_that_lead_inward_do_not_count() {
    let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
    let (inside, outside) = (at("169.254.169.254"), at("8.8.8.8"));
    let none = Networks::default();
    assert_eq!(admitted("evil.example", vec![inside, outside, at("::1")], &none).unwrap(), [outside]);
    assert!(admitted("evil.example", vec![inside, at("127.0.0.1"), at("64:ff9b::7f00:1")], &none).is_err());
    assert_eq!(admitted("evil.example", vec![inside], &networks("169.254.0.0/16")).unwrap(), [inside]);
    assert_eq!(admitted("evil.example", Vec::new(), &none).unwrap(), []);
    assert_eq!(admitted("localhost", vec![at("127.0.0.1"), inside], &none).unwrap(), [at("127.0.0.1")]);
    assert!(admitted("localhost.evil.example", vec![at("127.0.0.1")], &none).is_err());
}

proptest! {
    /// Any writing of an IPv4 in IPv6 is judged like the IPv4.
    #[test]
    fn clothes_do_not_matter(bits in any::<u32>()) {
        let v4 = Ipv4Addr::from_bits(bits);
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for v6 in [
            v4.to_ipv6_mapped(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        ] {
            prop_assert_eq!(is_inward(v6.into()), is_inward(v4.into()), "{} {}", v6, v4);
        }
        for host in [bits.to_string(), format!("0x{bits:x}"), format!("0{a:o}.{b}.0x{c:x}.{d}"), format!("{v4}.")] {
            prop_assert_eq!(begins(&format!("http://{host}/"), false, ""), !is_inward(v4.into()), "{}", host);
        }
    }

    /// The standard library's own words for what is inward are among ours.
    #[test]
    fn agrees_with_the_standard_library(v4 in any::<u32>(), v6 in any::<u128>()) {
        let v4 = Ipv4Addr::from_bits(v4);
        let inward = v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast() || v4.is_unspecified()
            || v4.is_broadcast() || v4.is_documentation();
        prop_assert!(!inward || is_inward(v4.into()));
        let v6 = Ipv6Addr::from_bits(v6);
        let inward = v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unique_local() || v6.is_multicast() || v6.is_unspecified();
        prop_assert!(!inward || is_inward(v6.into()));
    }
}
