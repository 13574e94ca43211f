//! `sslmode` and `sslrootcert` with libpq's meaning. tokio-postgres knows neither `verify-full` nor root certificates,
//! so both are taken out of the URL before it reads the rest.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::Socket;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::ConnectError;

/// How much TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// None.
    Disable,
    /// When the server offers it.
    Prefer,
    /// Encrypted, whoever is at the other end.
    Require,
    /// Encrypted, and proven to be the host of the URL.
    VerifyFull,
}

/// The TLS part of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) mode: Mode,
    pub(super) root_certificate: Option<String>,
}

/// Takes the TLS options out of the URL, or the `key=value` words.
pub(super) fn split(url: &str) -> Result<(String, Tls), ConnectError> {
    let mut tls = Tls { mode: Mode::Prefer, root_certificate: None };
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let (head, options, separator) = if is_url {
        let (head, query) = url.rsplit_once('?').unwrap_or((url, ""));
        (head, query.split('&').map(str::to_owned).collect(), "&")
    } else {
        ("", words(url), " ")
    };
    let mut kept: Vec<String> = Vec::new();
    for option in options {
        match option.split_once('=') {
            Some(("sslmode", value)) => tls.mode = mode(value.trim_matches('\''))?,
            Some(("sslrootcert", value)) => tls.root_certificate = Some(value.trim_matches('\'').replace("%2F", "/")),
            _ if option.is_empty() => {}
            _ => kept.push(option),
        }
    }
    if tls.root_certificate.is_some() && tls.mode != Mode::VerifyFull {
        return Err(ConnectError::InvalidUrl {
            fault: "sslrootcert is given, but sslmode does not check it".to_owned(),
            cure: "write sslmode=verify-full, or leave sslrootcert out",
        });
    }
    let rest = kept.join(separator);
    let url = if is_url && !rest.is_empty() { format!("{head}?{rest}") } else { format!("{head}{rest}") };
    Ok((url, tls))
}

/// `key=value` words; a value in single quotes may hold blanks.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if c == '\'' && !escaped {
            quoted = !quoted;
        }
        escaped = c == '\\' && !escaped;
        match words.last_mut() {
            Some(word) if quoted || !c.is_whitespace() => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words
}

fn mode(word: &str) -> Result<Mode, ConnectError> {
    match word {
        "disable" => Ok(Mode::Disable),
        "prefer" => Ok(Mode::Prefer),
        "require" => Ok(Mode::Require),
        "verify-full" => Ok(Mode::VerifyFull),
        "allow" | "verify-ca" => Err(ConnectError::InvalidUrl {
            fault: format!("sslmode={word} is not supported"),
            cure: "use disable, prefer, require or verify-full",
        }),
        _ => Err(ConnectError::InvalidUrl {
            fault: "sslmode has an unknown value".to_owned(),
            cure: "use disable, prefer, require or verify-full",
        }),
    }
}

/// TLS for tokio-postgres, which asks for it before it knows whether it is needed: for a Unix socket too, by an empty host
/// name, of which rustls makes an error.
#[derive(Clone)]
pub struct Connector(MakeRustlsConnect);

impl MakeTlsConnect<Socket> for Connector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.0, if host.is_empty() { "localhost" } else { host })
    }
}

impl Tls {
    /// The connector that tokio-postgres calls.
    pub(super) fn connector(&self) -> Result<Connector, ConnectError> {
        Ok(Connector(MakeRustlsConnect::new(self.client_config().map_err(ConnectError::Tls)?)))
    }

    fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS cannot be set up: {e}"))?;
        let config = match (self.mode, &self.root_certificate) {
            (Mode::VerifyFull, Some(path)) => {
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(path)?), provider)
                    .build()
                    .map_err(|e| format!("sslrootcert: {e}; give a PEM file with the server's CA"))?;
                builder.with_webpki_verifier(verifier)
            }
            (Mode::VerifyFull, None) => builder.with_platform_verifier().map_err(|e| {
                format!("the system's root certificates cannot be used: {e}; give sslrootcert=/path/ca.pem")
            })?,
            _ => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        };
        Ok(config.with_no_client_auth())
    }
}

fn roots(path: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(|e| format!("sslrootcert: {path} cannot be read: {e}; give a PEM file"))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| format!("sslrootcert: {path} is no PEM file: {e}"))?;
        store.add(certificate).map_err(|e| format!("sslrootcert: {path} holds no usable certificate: {e}"))?;
    }
    Ok(store)
}

/// libpq's `prefer` and `require`: encrypted against listeners, not proven against an active attacker.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
