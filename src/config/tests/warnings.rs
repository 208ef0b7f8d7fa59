//! What is taken, and yet said to be a bad idea.

use super::{Desk, strings};

#[test]
fn a_trusted_network_that_is_everybody_is_warned_of() {
    let desk = Desk::new();
    let text = |networks: &str| format!("trusted_proxies:\n  - 10.0.0.0/8\n  - {networks}\n");
    for (written, shown) in [("0.0.0.0/0", "0.0.0.0/0"), ("::/0", "::/0"), ("::ffff:0.0.0.0/96", "0.0.0.0/0")] {
        let warnings = strings(&desk.good(&text(written), "").warnings);
        let [warning] = &warnings[..] else { panic!("{written}: {warnings:?}") };
        assert!(warning.starts_with(&format!("a.yml:3: trusted_proxies[1]: {shown} is everybody: ")), "{warning}");
        for word in ["X-Forwarded-For", "PROXY", "allow, deny and limits", "logs"] {
            assert!(warning.contains(word), "{word}: {warning}");
        }
    }
    for written in ["192.168.0.0/16", "10.1.2.3", "fd00::/8", "'::1'"] {
        assert_eq!(desk.good(&text(written), "").warnings, [], "{written}");
    }
}
