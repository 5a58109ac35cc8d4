//! TLS: trusted authorities and our own certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};

use super::error::Error;

/// Which authorities a TLS endpoint trusts, and our own certificate.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// PEM files with certificate authorities.
    pub ca_files: Vec<PathBuf>,
    /// Directories with such PEM files.
    pub ca_dirs: Vec<PathBuf>,
    /// Trust only the authorities above and not the system's, as Nomad does with NOMAD_CACERT.
    pub only_given_authorities: bool,
    /// Our certificate chain, a PEM file; requires the key.
    pub client_certificate: Option<PathBuf>,
    /// Our private key, a PEM file.
    pub client_key: Option<PathBuf>,
    /// The name that the server's certificate must have, instead of the address's host.
    pub server_name: Option<String>,
    /// Do not verify the server's certificate.
    pub skip_verify: bool,
}

/// The rustls configuration for these options. Reads files, and the system's authorities if they are trusted.
pub(super) fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Setup(format!("TLS: {error}")))?;
    let builder = if options.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(authorities(options)?)
    };
    let mut config = match (&options.client_certificate, &options.client_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| unreadable("the client's private key", key, &error))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| unreadable("the client's certificate and key", certificate, &error))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => {
            return Err(Error::Setup(
                "a client certificate and its private key go together: give both or none".into(),
            ));
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn authorities(options: &TlsOptions) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let mut add = |path: &Path| -> Result<(), Error> {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| unreadable("a certificate authority", path, &error))?;
        }
        Ok(())
    };
    for path in &options.ca_files {
        add(path)?;
    }
    for directory in &options.ca_dirs {
        let entries = std::fs::read_dir(directory)
            .map_err(|error| unreadable("the directory of certificate authorities", directory, &error))?;
        let mut paths: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
        paths.sort();
        for path in paths {
            add(&path)?;
        }
    }
    if !options.only_given_authorities {
        // Some systems have individual authorities that do not parse; those are skipped.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(Error::Setup(
            "TLS: no certificate authorities found; install the system's (ca-certificates) or name a file"
                .into(),
        ));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable("certificates", path, &error))?;
    if found.is_empty() {
        return Err(Error::Setup(format!("{} contains no PEM certificate", path.display())));
    }
    Ok(found)
}

fn unreadable(what: &str, path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Setup(format!("cannot read {what} from {}: {error}", path.display()))
}

/// Accepts every certificate, for NOMAD_SKIP_VERIFY; signatures are still verified.
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
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
