//! The policies that are shipped, to the exact call.

use super::calls::{Fake, compile};
use proto::{
    doc::Severity,
    policy::{self, Dialect},
};

/// File, dialect, its tool, what that tool's 31st call in a minute hears, and whether others may be called.
const SNIPPETS: [(&str, &str, Dialect, &str, &str, bool); 5] = [
    (
        "flux_edit_image.yaml",
        include_str!("../../../../config/policies/flux_edit_image.yaml"),
        Dialect::Catalogue,
        "flux_edit_image",
        "/tools/flux_edit_image/rules/0",
        true,
    ),
    (
        "flux_generate_image.yaml",
        include_str!("../../../../config/policies/flux_generate_image.yaml"),
        Dialect::Catalogue,
        "flux_generate_image",
        "/tools/flux_generate_image/rules/0",
        true,
    ),
    (
        "generate_image.yaml",
        include_str!("../../../../config/policies/generate_image.yaml"),
        Dialect::Catalogue,
        "generate_image",
        "/tools/generate_image/rules/0",
        true,
    ),
    (
        "img2img.json",
        include_str!("../../../../config/policies/img2img.json"),
        Dialect::Native,
        "img2img",
        "/tools/img2img/limits/img2img_rate",
        false,
    ),
    (
        "inpaint.json",
        include_str!("../../../../config/policies/inpaint.json"),
        Dialect::Native,
        "inpaint",
        "/tools/inpaint/limits/inpaint_rate",
        false,
    ),
];

#[test]
fn the_five_published_snippets_hold_to_the_exact_call() {
    for (file, document, dialect, tool, rule, others) in SNIPPETS {
        let loaded =
            policy::load(document).unwrap_or_else(|problems| panic!("{file}: {problems:#?}"));
        assert_eq!(loaded.dialect, dialect, "{file}");
        let policy = compile(document);
        for ignorant in [false, true] {
            let mut fake = Fake {
                ignorant,
                ..Fake::default()
            };
            // 1,000,000,000,000 ms is 40 s into its minute.
            let scope = if dialect == Dialect::Catalogue {
                "session"
            } else {
                "grant"
            };
            let denied = format!(
                "limit@{rule}: Limit of 30 per minute reached ({scope}). Try again in 20 s."
            );
            assert_eq!(
                fake.call(&policy, &format!("s=a x30 {tool} {{\"prompt\":\"a cat\"}}")),
                "admit",
                "{file}"
            );
            assert_eq!(
                fake.call(&policy, &format!("s=a {tool} {{}}")),
                denied,
                "{file}"
            );
            assert_eq!(
                fake.call(&policy, &format!("s=a t=19999 {tool} {{}}")),
                denied.replace("20 s", "1 s"),
                "{file}"
            );
            assert_eq!(
                fake.call(&policy, &format!("s=a t=20000 x30 {tool} {{}}")),
                "admit",
                "{file}: the next minute"
            );
            assert_eq!(
                fake.call(&policy, &format!("g=g2 s=b x30 {tool} {{}}")),
                "admit",
                "{file}: another grant"
            );
            let other = fake.call(&policy, "other {}");
            assert_eq!(other.starts_with("admit"), others, "{file}: {other}");
            assert_eq!(policy.lists("other"), others, "{file}");
        }
    }
}

#[test]
fn starting_sessions_over_gains_nothing() {
    let policy = compile(SNIPPETS[2].1);
    let mut fake = Fake::default();
    for session in 0..8 {
        assert_eq!(
            fake.call(&policy, &format!("s={session} x30 generate_image {{}}")),
            "admit"
        );
    }
    let said = fake.call(&policy, "s=8 generate_image {}");
    assert_eq!(
        said,
        "limit@/tools/generate_image/rules/0: Limit of 240 per minute reached (grant). Try again in 20 s."
    );
    assert_eq!(fake.call(&policy, "g=g2 s=9 generate_image {}"), "admit");
}

#[test]
fn every_shipped_policy_is_free_of_errors_and_warnings() {
    let demo = [
        (
            "payments.yaml",
            include_str!("../../../../config/policies/payments.yaml"),
        ),
        (
            "payments.json",
            include_str!("../../../../config/policies/payments.json"),
        ),
    ];
    let files = SNIPPETS.iter().map(|s| (s.0, s.1)).chain(demo);
    for (file, document) in files {
        let loaded =
            policy::load(document).unwrap_or_else(|problems| panic!("{file}: {problems:#?}"));
        let notes = loaded
            .remarks
            .iter()
            .all(|remark| remark.severity == Severity::Note);
        assert!(notes, "{file}: {:#?}", loaded.remarks);
    }
}
