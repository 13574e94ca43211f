//! Whether the installed apps' providers can be reached from this machine: TCP and TLS, no request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Finding;
use crate::outbox::postgres::operator::apps::App;
use crate::provider::Registry;

pub(super) async fn examine(apps: &[App], limit: Duration) -> Vec<Finding> {
    // Many organizations share a provider: each address is tried once.
    let mut addresses: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for app in apps.iter().filter(|app| !app.paused) {
        // An address of the app's own that this login may not see must not be mistaken for the provider's.
        let elsewhere = app.config_set.iter().any(|field| field == "base_url");
        let own = || Registry::new().get(&app.provider_slug)?.own_address().filter(|_| !elsewhere).map(str::to_owned);
        if let Some(address) = app.address.clone().or_else(own) {
            addresses.entry(address).or_default().push(app.app_id);
        }
    }
    if addresses.is_empty() {
        return vec![Finding::ok("providers", "no app is installed whose address is known")];
    }
    let tries = addresses.into_iter().map(async |(address, apps)| {
        let apps = apps.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        match reach(&address, limit).await {
            Ok(()) => Finding::ok("provider", format!("{address} can be reached (apps {apps})")),
            Err(fault) => Finding::warn(
                "provider",
                format!("{address} cannot be reached: {fault} (apps {apps})"),
                "check name resolution, firewall and proxy of this machine; workers elsewhere may reach it all the same",
            ),
        }
    });
    futures_util::future::join_all(tries).await
}

async fn reach(address: &str, limit: Duration) -> Result<(), String> {
    let url = Url::parse(address).map_err(|e| e.to_string())?;
    let host = url.host_str().ok_or("it names no host")?.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().ok_or("it names no port")?;
    let connect = async {
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| e.to_string())?;
        if url.scheme() == "https" {
            let name = ServerName::try_from(host.clone()).map_err(|e| e.to_string())?;
            tls()?.connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?;
        }
        Ok(())
    };
    timeout(limit, connect).await.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs_f64())))
}

fn tls() -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|e| format!("the system's root certificates cannot be used: {e}"))?;
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_reached_or_the_fault_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let limit = Duration::from_secs(5);
        assert_eq!(reach(&format!("http://127.0.0.1:{port}/path"), limit).await, Ok(()));
        drop(listener);
        assert!(reach(&format!("http://127.0.0.1:{port}"), limit).await.is_err());
        assert!(reach("data:text", limit).await.is_err());
    }
}
