//! What holds for whatever an upstream says.

use proptest::prelude::*;

use super::*;

const FORMS: [LocationForm; 3] = [LocationForm::Absolute, LocationForm::Relative, LocationForm::Preserve];

fn client(form: LocationForm) -> Client<'static> {
    let realms =
        vec![realm("https://gitlab.example.com/jwt/auth", &[]), realm("https://in.example/x", &["10.0.0.0/8"])];
    Client::of(Upstream { location: form, realms, ..upstream() })
}

fn heard(client: &Client<'_>, status: u16, name: &'static str, value: &[u8]) -> Option<Vec<u8>> {
    let mut answer = ResponseHeader::build(status, None).unwrap();
    answer.append_header(name, HeaderValue::from_bytes(value).ok()?).unwrap();
    let ours = [origin(EXTERNAL), origin(ALIAS)];
    let place = Place {
        method: &client.method,
        origin: &client.origin,
        ours: &ours,
        client: client.address,
        upstream: &client.upstream,
        address: None,
        token: Some("/token"),
    };
    let _ = response(&mut answer, &place).unwrap(); // concerns are allowed here
    Some(answer.headers.get(name).expect("no line is lost").as_bytes().to_vec())
}

/// Text that is nearly a URL, a list of links or a challenge.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "https://",
        "http://",
        "//",
        "/",
        "gitlab.example.com",
        ":5050",
        "registry:5000",
        "127.0.0.1",
        ":",
        "@",
        "[::1]",
        "/v2/",
        "?",
        "#",
        "\\",
        "\"",
        ",",
        ";",
        "=",
        " ",
        "<",
        ">",
        "rel=next",
        "Bearer ",
        "Basic ",
        "realm=",
        "realm=\"",
        "X-Amz-Signature=1",
        "%2f",
        "é",
        "evil.example",
        "/token",
        "/jwt/auth",
    ]);
    prop_oneof![
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..64),
    ]
}

proptest! {
    #[test]
    fn nothing_panics_and_twice_is_once(
        text in nearly(),
        status in prop::sample::select(vec![200u16, 201, 202, 204, 301, 307, 401]),
        form in prop::sample::select(FORMS.to_vec()),
    ) {
        let client = client(form);
        for name in ["Location", "Link", "WWW-Authenticate"] {
            let Some(once) = heard(&client, status, name, &text) else { continue };
            let twice = heard(&client, status, name, &once).unwrap();
            prop_assert_eq!(&once, &twice, "{}: {:?}", name, String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn strangers_keep_every_byte(
        host in "[a-z]{1,8}\\.(net|test)(:[1-9][0-9]{0,3})?",
        rest in "(/[!-~]{0,40})?",
        scheme in "(https?|HTTPS):",
        form in prop::sample::select(FORMS.to_vec()),
        status in prop::sample::select(vec![201u16, 202, 302, 307]),
    ) {
        let url = format!("{scheme}//{host}{rest}").into_bytes();
        prop_assert_eq!(heard(&client(form), status, "Location", &url), Some(url));
    }

    #[test]
    fn what_was_ours_is_below_the_origin_that_the_client_used(
        scheme in "https?",
        name in prop::sample::select(vec!["gitlab.example.com", "registry.example.com", "registry:5000", "127.0.0.1:5000", "localhost:5000"]),
        port in "(:(80|443|5050|5678))?",
        path in "/v2/[!-\\[\\]-~]{0,40}",
        form in prop::sample::select(FORMS.to_vec()),
        external in prop::sample::select(vec![EXTERNAL, ALIAS]),
    ) {
        let port = if name.contains(':') { "" } else { port.as_str() };
        let client = Client { origin: origin(external), ..client(form) };
        let whole = format!("{external}{path}");
        let expected = if form == LocationForm::Relative { path.clone() } else { whole.clone() };
        let url = format!("{scheme}://{name}{port}{path}");
        prop_assert_eq!(heard(&client, 202, "Location", url.as_bytes()), Some(expected.into_bytes()));
        let kept = if form == LocationForm::Absolute { whole } else { path.clone() };
        prop_assert_eq!(heard(&client, 202, "Location", path.as_bytes()), Some(kept.into_bytes()));
    }

    #[test]
    fn a_bearer_leads_to_a_realm_that_is_listed_or_to_our_own_endpoint_or_is_a_concern(text in nearly()) {
        let strict = Client { upstream: Upstream { strict: true, ..client(LocationForm::Absolute).upstream }, ..client(LocationForm::Absolute) };
        let Ok(value) = HeaderValue::from_bytes(&[b"Bearer realm=\"", text.as_slice(), b"\""].concat()) else { return Ok(()) };
        let mut answer = ResponseHeader::build(401, None).unwrap();
        answer.append_header("WWW-Authenticate", value).unwrap();
        let ours = [origin(EXTERNAL), origin(ALIAS)];
        let place = Place { method: &strict.method, origin: &strict.origin, ours: &ours, client: strict.address, upstream: &strict.upstream, address: None, token: Some("/token") };
        if response(&mut answer, &place).is_ok() {
            let line = answer.headers["www-authenticate"].to_str().unwrap();
            let allowed = ["https://gitlab.example.com/jwt/auth\"", "https://gitlab.example.com:5050/token"];
            prop_assert!(allowed.iter().any(|realm| line.starts_with(&format!("Bearer realm=\"{realm}"))), "{}", line);
        }
    }
}
