//! TLS, mutual TLS and proxies, with certificates generated here.

use std::{path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::{super::*, read_head};

/// A certificate authority, a server with its certificate, and a client's certificate, as files.
struct World {
    directory: tempfile::TempDir,
    port: u16,
}

impl World {
    /// Serves TLS for `name`, one request per connection; requires a client certificate if `mutual`.
    async fn new(name: &str, mutual: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_certificate = params.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let write = |file: &str, text: String| std::fs::write(directory.path().join(file), text).unwrap();
        write("ca.pem", authority_certificate.pem());
        let stranger = KeyPair::generate().unwrap();
        write("other-ca.pem", CertificateParams::new(vec![]).unwrap().self_signed(&stranger).unwrap().pem());

        let client_key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["client".into()]).unwrap();
        write("client.pem", certificate.signed_by(&client_key, &issuer).unwrap().pem());
        write("client.key", client_key.serialize_pem());

        let server_key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.into()]).unwrap();
        let certificate = certificate.signed_by(&server_key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if mutual {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority_certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                if read_head(&mut stream).await.is_empty() {
                    continue;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok();
                stream.shutdown().await.ok();
            }
        });
        Self { directory, port }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn trusting(&self) -> TlsOptions {
        TlsOptions {
            ca_files: vec![self.file("ca.pem")],
            only_given_authorities: true,
            ..TlsOptions::default()
        }
    }

    async fn get(&self, host: &str, tls: TlsOptions) -> Result<Response, Error> {
        let endpoint = Endpoint::parse(&format!("https://{host}:{}", self.port)).unwrap();
        Client::new(endpoint, Options { tls, ..Options::default() })?.send(Request::get("/")).await
    }
}

#[tokio::test]
async fn a_given_authority_is_trusted_and_another_one_is_not() {
    let world = World::new("127.0.0.1", false).await;
    assert_eq!(world.get("127.0.0.1", world.trusting()).await.unwrap().body, "ok");

    let directory = TlsOptions {
        ca_dirs: vec![world.directory.path().join("authorities")],
        only_given_authorities: true,
        ..TlsOptions::default()
    };
    std::fs::create_dir(world.file("authorities")).unwrap();
    std::fs::copy(world.file("ca.pem"), world.file("authorities/ca.pem")).unwrap();
    assert_eq!(world.get("127.0.0.1", directory).await.unwrap().body, "ok");

    let other = TlsOptions { ca_files: vec![world.file("other-ca.pem")], ..world.trusting() };
    let error = world.get("127.0.0.1", other.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    assert!(!error.is_ambiguous() && !error.is_transient());
    let unchecked = TlsOptions { skip_verify: true, ..other };
    assert_eq!(world.get("127.0.0.1", unchecked).await.unwrap().body, "ok");
}

#[tokio::test]
async fn the_certificate_must_have_the_servers_name() {
    let world = World::new("server.global.nomad", false).await;
    let error = world.get("127.0.0.1", world.trusting()).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    let named = TlsOptions { server_name: Some("server.global.nomad".into()), ..world.trusting() };
    assert_eq!(world.get("127.0.0.1", named).await.unwrap().body, "ok");
}

#[tokio::test]
async fn a_client_certificate_is_presented_if_there_is_one() {
    let world = World::new("127.0.0.1", true).await;
    let error = world.get("127.0.0.1", world.trusting()).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }) && !error.is_ambiguous(), "{error}");
    let known = TlsOptions {
        client_certificate: Some(world.file("client.pem")),
        client_key: Some(world.file("client.key")),
        ..world.trusting()
    };
    assert_eq!(world.get("127.0.0.1", known.clone()).await.unwrap().body, "ok");
    let half = TlsOptions { client_key: None, ..known };
    assert!(matches!(world.get("127.0.0.1", half).await.unwrap_err(), Error::Setup(_)));
}

#[tokio::test]
async fn a_file_without_a_certificate_is_named() {
    let world = World::new("127.0.0.1", false).await;
    std::fs::write(world.file("empty.pem"), "nothing").unwrap();
    let empty = TlsOptions { ca_files: vec![world.file("empty.pem")], ..TlsOptions::default() };
    assert!(world.get("127.0.0.1", empty).await.unwrap_err().to_string().contains("empty.pem"));
}

#[tokio::test]
async fn an_https_host_is_reached_through_the_proxy() {
    let world = World::new("github.example", false).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let port = world.port;
    let tunnel = tokio::spawn(async move {
        let (mut inside, _) = proxy.accept().await.unwrap();
        let head = read_head(&mut inside).await;
        let mut outside = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        inside.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        tokio::io::copy_bidirectional(&mut inside, &mut outside).await.ok();
        head
    });
    let endpoint = Endpoint::parse("https://github.example").unwrap();
    let through = |https: String, no: &str| {
        let proxy = Proxy::Given { https, no: no.into() };
        let options = Options { tls: world.trusting(), proxy, ..Options::default() };
        Client::new(endpoint.clone(), options)
    };
    let client = through(format!("http://me:word@{address}"), "other.example").unwrap();
    assert_eq!(client.send(Request::get("/")).await.unwrap().body, "ok");
    drop(client);
    let head = tunnel.await.unwrap();
    assert!(head.starts_with("CONNECT github.example:443 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic bwu6d29yza==\r\n"), "{head}");
    // A proxy of another kind is refused, unless NO_PROXY makes it irrelevant.
    assert!(matches!(through("socks5://127.0.0.1:1".into(), ""), Err(Error::Setup(_))));
    assert!(through("socks5://127.0.0.1:1".into(), "github.example").is_ok());
    assert!(through("socks5://127.0.0.1:1".into(), "other.example, github.example:443").is_ok());
    assert!(through("socks5://127.0.0.1:1".into(), "github.example:8443").is_err(), "that is another port");
    // An invalid one is an error: a direct connection may not be what its owner wants.
    for malformed in ["http://", "http://pro xy:3128", "::::"] {
        let error = through(malformed.into(), "").unwrap_err().to_string();
        assert!(error.contains("HTTPS_PROXY"), "{malformed}: {error}");
    }
}
