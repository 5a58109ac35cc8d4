//! A real Nomad agent with TLS and mutual TLS: the nomad command's variables, and the errors when they are
//! wrong.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::common::{
    nomad_agent::{Agent, AgentOptions, Tls},
    site::{Finished, NAMESPACE, Site},
};

/// An authority with certificates for a server and a client, and one without.
fn certificates() -> &'static Path {
    // The agent's options are copied, so the directory stays until the process ends, in the system's temporary
    // directory.
    let directory: &'static Path = Box::leak(tempfile::tempdir().unwrap().keep().into_boxed_path());
    let write = |file: &str, text: String| std::fs::write(directory.join(file), text).unwrap();
    for (authority, prefix) in [("ca.pem", ""), ("other-ca.pem", "other-")] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write(authority, params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        for (name, names) in [
            ("server", &["server.global.nomad", "localhost", "127.0.0.1"][..]),
            ("client", &["client.global.nomad"]),
        ] {
            let key = KeyPair::generate().unwrap();
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
            write(&format!("{prefix}{name}.pem"), certificate.pem());
            write(&format!("{prefix}{name}.key"), key.serialize_pem());
        }
    }
    std::fs::create_dir(directory.join("authorities")).unwrap();
    std::fs::copy(directory.join("ca.pem"), directory.join("authorities/ca.pem")).unwrap();
    std::fs::write(directory.join("empty.pem"), "nothing\n").unwrap();
    directory
}

/// A case's variables; those that name files have the form `NAME=file` with a file in the certificates'
/// directory.
type Case = (&'static [(&'static str, &'static str)], Result<(), &'static [&'static str]>);

async fn hold(mutual: bool, cases: &[Case]) {
    let directory = certificates();
    let options = AgentOptions { tls: Some(Tls { directory, mutual }), ..AgentOptions::default() };
    let Some(agent) = Agent::start(options).await else { return };
    agent.create_namespace(NAMESPACE).await;
    let site = Site::start().await;
    for (variables, expected) in cases {
        let Finished { code, out, err } = list(&site, &agent, directory, variables).await;
        match expected {
            Ok(()) => assert_eq!(code, 0, "{variables:?}: {out}{err}"),
            Err(words) => {
                assert_ne!(code, 0, "{variables:?}: {out}");
                for word in *words {
                    assert!(err.contains(word), "{variables:?}: {word:?} is not in {err}");
                }
            }
        }
    }
    std::fs::remove_dir_all(directory).unwrap();
}

async fn list(site: &Site, agent: &Agent, directory: &Path, variables: &[(&str, &str)]) -> Finished {
    let mut program = site.program();
    program.env("NOMAD_ADDR", &agent.address);
    for (name, value) in variables {
        let file: PathBuf = directory.join(value);
        match file.exists() || value.ends_with(".pem") {
            true => program.env(name, file),
            false => program.env(name, value),
        };
    }
    let output =
        program.arg("-c").arg(site.write_config(&site.config(""))).arg("list").output().await.unwrap();
    Finished {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_agent_behind_tls() {
    const ADVICE: &[&str] = &["TLS failed", "certificate", "NOMAD_CACERT"];
    let cases: &[Case] = &[
        (&[("NOMAD_CACERT", "ca.pem")], Ok(())),
        (&[("NOMAD_CAPATH", "authorities")], Ok(())),
        (&[("NOMAD_CACERT", "ca.pem"), ("NOMAD_TLS_SERVER_NAME", "server.global.nomad")], Ok(())),
        (&[("NOMAD_SKIP_VERIFY", "true")], Ok(())),
        (&[], Err(ADVICE)),
        (&[("NOMAD_CACERT", "other-ca.pem")], Err(ADVICE)),
        (
            &[("NOMAD_CACERT", "ca.pem"), ("NOMAD_TLS_SERVER_NAME", "other.nomad")],
            Err(&["NOMAD_TLS_SERVER_NAME"]),
        ),
        (&[("NOMAD_CACERT", "missing.pem")], Err(&["missing.pem", "No such file"])),
        (&[("NOMAD_CACERT", "empty.pem")], Err(&["empty.pem"])),
        (&[("NOMAD_CAPATH", "nowhere.pem")], Err(&["nowhere.pem", "No such file"])),
        (&[("NOMAD_SKIP_VERIFY", "maybe")], Err(&["NOMAD_SKIP_VERIFY", "maybe"])),
    ];
    hold(false, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_agent_behind_mutual_tls() {
    const CA: (&str, &str) = ("NOMAD_CACERT", "ca.pem");
    const CERT: (&str, &str) = ("NOMAD_CLIENT_CERT", "client.pem");
    const KEY: (&str, &str) = ("NOMAD_CLIENT_KEY", "client.key");
    let cases: &[Case] = &[
        (&[CA, CERT, KEY], Ok(())),
        (&[("NOMAD_SKIP_VERIFY", "1"), CERT, KEY], Ok(())),
        (&[CA], Err(&["certificate", "NOMAD_CLIENT_CERT"])),
        (
            &[CA, ("NOMAD_CLIENT_CERT", "other-client.pem"), ("NOMAD_CLIENT_KEY", "other-client.key")],
            Err(&["NOMAD_CLIENT_CERT"]),
        ),
        (&[CA, CERT], Err(&["NOMAD_CLIENT_CERT", "NOMAD_CLIENT_KEY"])),
        (&[CA, CERT, ("NOMAD_CLIENT_KEY", "other-client.key")], Err(&["client.pem"])),
        (&[CA, CERT, ("NOMAD_CLIENT_KEY", "empty.pem")], Err(&["empty.pem"])),
    ];
    hold(true, cases).await;
}
