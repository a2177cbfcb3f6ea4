use super::*;

const WHO: Who = Who {
    cluster: 0xabc,
    node: NodeId(0x1234),
    role: Role::Voter,
};
const MADE_MS: u64 = 1_785_230_400_000;

#[test]
fn a_name_says_who_in_one_way_only() {
    let name = WHO.name();
    assert_eq!(
        name,
        "n0000000000001234.c00000000000000000000000000000abc.voter.tollgate.internal"
    );
    assert_eq!(Who::parse(&name), Some(WHO));
    for other in [
        name.to_uppercase(),
        name.replace("voter", "king"),
        name.replace("n0000", "n000"),
        name.replace("n0", "n+"),
        format!("{name}.example"),
        String::new(),
    ] {
        assert_eq!(Who::parse(&other), None, "{other}");
    }
}

#[test]
fn credentials_survive_their_files() {
    let authority = Authority::new(WHO.cluster, MADE_MS).unwrap();
    let made = authority.issue(WHO.node, WHO.role, MADE_MS).unwrap();
    assert_eq!(Who::of(&made.cert).unwrap(), WHO);
    let (ca, cert, key) = (authority.cert_pem(), cert_pem(&made.cert), made.key_pem());
    let read = Credentials::from_pem(&ca, &cert, &key).unwrap();
    assert_eq!((read.who, &read.cert), (WHO, &made.cert));
    let days = (read.expires_ms().unwrap() - MADE_MS) / 86_400_000;
    assert_eq!(days, 3_650);

    let other = authority.issue(NodeId(5), Role::Client, MADE_MS).unwrap();
    let mixed = Credentials::from_pem(&ca, &cert, &other.key_pem());
    assert!(matches!(mixed, Err(Error::Key)));
    assert!(matches!(
        Credentials::from_pem(&ca, &ca, &key),
        Err(Error::NotANode)
    ));
    assert!(!format!("{made:?}").contains("key"));
}

#[test]
fn an_authority_survives_its_files_and_signs_as_before() {
    let made = Authority::new(WHO.cluster, MADE_MS).unwrap();
    let read = Authority::from_pem(WHO.cluster, &made.cert_pem(), &made.key_pem()).unwrap();
    let node = read.issue(WHO.node, WHO.role, MADE_MS).unwrap();
    let cert = webpki::EndEntityCert::try_from(&node.cert).unwrap();
    let anchors = [webpki::anchor_from_trusted_cert(made.cert()).unwrap()];
    let now =
        rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_millis(MADE_MS));
    cert.verify_for_usage(
        config::provider().signature_verification_algorithms.all,
        &anchors,
        &[],
        now,
        webpki::KeyUsage::client_auth(),
        None,
        None,
    )
    .unwrap();
    let stranger = Authority::new(WHO.cluster, MADE_MS).unwrap();
    let mixed = Authority::from_pem(WHO.cluster, &made.cert_pem(), &stranger.key_pem());
    assert!(matches!(mixed, Err(Error::Key)));
}

#[test]
fn dates_are_read_from_any_bytes_without_harm() {
    let made = Authority::new(1, MADE_MS).unwrap();
    for end in 0..made.cert().len() {
        let _ = pem::not_after_ms(&made.cert()[..end]);
    }
    let mut bytes = made.cert().to_vec();
    for at in 0..bytes.len() {
        bytes[at] ^= 0xff;
        let _ = pem::not_after_ms(&bytes);
        bytes[at] ^= 0xff;
    }
    // After 2049 dates are written in another way.
    assert!(pem::not_after_ms(made.cert()).is_some_and(|end| end > MADE_MS));
}
