//! A key set behind HTTPS: the server's certificate must be one that the system trusts.
//!
//! The test runs itself a second time with its own CA as the system's: the same server must then be believed, else
//! the refusal of the first run would prove nothing. The key beside this file is good for nothing but this test.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use linkgate::identity::settings::KeySource;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::support::*;

const TRUSTING: &str = "LINKGATE_TEST_TRUSTS_ITS_CA";

/// Serves one document to whoever completes a handshake; returns its address.
fn serve(document: String) -> String {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/jwks", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut request = [0; 4096];
            if tls.read(&mut request).is_ok_and(|length| length > 0) {
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
                let _ = write!(tls, "{head}: {}\r\n\r\n{document}", document.len());
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    url
}

#[tokio::test]
async fn https_is_verified_against_the_systems_roots() {
    let trusting = std::env::var_os(TRUSTING).is_some();
    if !trusting {
        let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/identity_suite/tls/ca.pem");
        let again = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "https::https_is_verified_against_the_systems_roots"])
            .envs([(TRUSTING, "1"), ("SSL_CERT_FILE", ca)])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stdout).into_owned();
        assert!(again.status.success() && said.contains("1 passed"), "with the CA trusted: {said}");
    }
    let key = Key::es256("k1");
    let keys = KeySource::JwksUrl {
        url: serve(key.dev.jwks()),
        refresh: Duration::from_millis(100),
        min_refetch: Duration::ZERO,
        max_age: Duration::from_secs(60),
    };
    let settings = settings(vec![issuer("main", keys)]);
    // A machine without any CA bundle refuses at once, which is as good here.
    let verifier = match linkgate::identity::Verifier::new(&settings, None) {
        Ok(verifier) => Arc::new(verifier),
        Err(error) => {
            assert!(!trusting && error.to_string().contains("CA bundle"), "{error}");
            return;
        }
    };
    tokio::spawn(verifier.clone().maintain());
    let start = Instant::now();
    while !verifier.ready() && start.elapsed() < Duration::from_secs(if trusting { 10 } else { 1 }) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(verifier.ready(), trusting);
    assert_eq!(verify(&verifier, &key.token(&claims())).is_ok(), trusting);
}
