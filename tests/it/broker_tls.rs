//! A stack whose broker is reached over TLS.

use embedded_broker::{Broker, Settings, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::stack::{Stack, text};

#[test]
fn all_parts_reach_a_broker_over_amqps_by_an_authority_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let tls = Tls::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, authority.pem()).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let settings = Settings { tls: Some(tls), ..Settings::new(any, folder.path().join("broker"), "guest", "guest") };
    let broker = runtime.block_on(Broker::start(settings)).unwrap();
    let stack = Stack::start_on(&broker.url(), &file);
    let output = stack.command().args(["run", "--", "echo", "over TLS"]).output().unwrap();
    assert_eq!(text(&output).0, "over TLS\n", "{}", text(&output).1);
    stack.stop();
    runtime.block_on(broker.stop());
}
