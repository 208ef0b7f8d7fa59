//! Rules L1 to L11, and the rows of what Distribution makes of headers.

use super::*;

const UPLOAD: &str = "/v2/a/b/blobs/uploads/1f?_state=q%2Fx%3D%3D&x=%5C";

fn client(location: LocationForm) -> Client<'static> {
    Client::of(Upstream { location, ..upstream() })
}

/// Status, what the upstream says, what the client gets.
type Row<'a> = (u16, &'a str, &'a str);

fn hold(client: &Client<'_>, rows: &[Row<'_>]) {
    for (status, said, heard) in rows {
        assert_eq!(client.gets_line(*status, "Location", said), ((*heard).to_owned(), false), "{status} {said}");
    }
}

fn keep(client: &Client<'_>, rows: &[(u16, &str)]) {
    for (status, said) in rows {
        hold(client, &[(*status, said, said)]);
    }
}

#[test]
fn l1_nothing_stays_nothing() {
    keep(&client(LocationForm::Absolute), &[(202, "")]);
    let (answer, _) = client(LocationForm::Absolute).gets(202, &[]).unwrap();
    assert!(answer.headers.is_empty());
}

#[test]
fn l2_signed_redirects_to_storage_keep_every_byte() {
    for status in [301, 302, 303, 307, 308] {
        for storage in [
            "https://bucket.s3.eu-central-1.amazonaws.com/docker/registry/v2/blobs/sha256/ab/data?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00ff%2F&x=a+b~c",
            "https://storage.googleapis.com:443/b/o?X-Goog-Signature=1",
            "HTTPS://Account.Blob.Core.Windows.net/c/o?sv=1&sig=a%2Bb%3D",
            "https://d111.cloudfront.net/v2/x?Expires=1&Signature=a~b_&Key-Pair-Id=K",
            "http://minio.internal:9000/v2/registry/blobs?X-Amz-Signature=1",
            "//storage.example.net/v2/x",
            "http://127.0.0.1:9000/bucket?X-Amz-Signature=1",
        ] {
            for form in [LocationForm::Absolute, LocationForm::Relative, LocationForm::Preserve] {
                keep(&client(form), &[(status, storage)]);
            }
            let strict = Client::of(Upstream { strict: true, ..upstream() });
            keep(&strict, &[(status, storage)]);
        }
    }
}

#[test]
fn l3_what_is_on_our_host_and_not_the_registrys_stays_where_it_is() {
    keep(
        &client(LocationForm::Absolute),
        &[
            (307, "https://gitlab.example.com:9000/bucket/v2/x?X-Amz-Signature=1"),
            (307, "https://gitlab.example.com:9000/v2/x?partNumber=1&X-Amz-Signature=1"),
            (307, "https://gitlab.example.com/v2/x?sig=1"),
            (302, "https://gitlab.example.com/users/sign_in"),
            (302, "https://gitlab.example.com:5050/users/sign_in"),
            (302, "http://registry.example.com/v2x"),
            (201, "https://gitlab.example.com/other"),
        ],
    );
    // A parameter that is merely called something like it is none.
    let near = ("https://gitlab.example.com/v2/x?signature_=1", "https://gitlab.example.com:5050/v2/x?signature_=1");
    hold(&client(LocationForm::Absolute), &[(307, near.0, near.1)]);
}

#[test]
fn l4_the_upstreams_own_names_become_ours() {
    let client = client(LocationForm::Absolute);
    for name in [
        "http://127.0.0.1:5000",
        "https://127.0.0.1:5000",
        "http://localhost:5000",
        "http://[::1]:5000",
        "http://127.0.0.9:5000",
        "http://[::ffff:127.0.0.1]:5000",
        "http://registry:5000",
        "HTTP://Registry:5000",
        "http://10.1.2.3:5000",
    ] {
        for status in [201, 202, 204, 307] {
            hold(&client, &[(status, &format!("{name}{UPLOAD}"), &format!("{EXTERNAL}{UPLOAD}"))]);
        }
    }
    hold(&client, &[(302, "http://127.0.0.1:5000/users/sign_in", &format!("{EXTERNAL}/users/sign_in"))]);
}

#[test]
fn l5_the_wrong_scheme_or_port_of_our_names_becomes_the_right_one() {
    let client = client(LocationForm::Absolute);
    for name in [
        "http://gitlab.example.com:5050",
        "https://gitlab.example.com",
        "http://gitlab.example.com",
        "https://gitlab.example.com:443",
        "http://gitlab.example.com:80",
        "https://gitlab.example.com:5678",
        "https://GitLab.Example.com:5050",
        "https://registry.example.com",
        "http://registry.example.com:8080",
    ] {
        hold(&client, &[(202, &format!("{name}{UPLOAD}"), &format!("{EXTERNAL}{UPLOAD}"))]);
    }
    let alias = Client { origin: origin(ALIAS), ..client };
    for name in ["https://registry.example.com:443", EXTERNAL, "http://registry.example.com:80"] {
        hold(&alias, &[(202, &format!("{name}{UPLOAD}"), &format!("{ALIAS}{UPLOAD}"))]);
    }
}

#[test]
fn l6_what_is_right_stays() {
    keep(&client(LocationForm::Absolute), &[(202, &format!("{EXTERNAL}{UPLOAD}")), (201, EXTERNAL)]);
    keep(&client(LocationForm::Preserve), &[(202, &format!("{EXTERNAL}{UPLOAD}"))]);
}

#[test]
fn l7_a_url_without_scheme_is_a_url() {
    let client = client(LocationForm::Absolute);
    hold(
        &client,
        &[
            (202, &format!("//registry:5000{UPLOAD}"), &format!("{EXTERNAL}{UPLOAD}")),
            (202, &format!("//gitlab.example.com{UPLOAD}"), &format!("{EXTERNAL}{UPLOAD}")),
            (202, &format!("//gitlab.example.com:5050{UPLOAD}"), &format!("{EXTERNAL}{UPLOAD}")),
        ],
    );
}

#[test]
fn l8_paths_become_absolute_and_with_preserve_or_relative_stay() {
    let absolute = client(LocationForm::Absolute);
    hold(&absolute, &[(202, UPLOAD, &format!("{EXTERNAL}{UPLOAD}")), (301, "/v2/", &format!("{EXTERNAL}/v2/"))]);
    keep(
        &absolute,
        &[(302, "/users/sign_in"), (202, "uploads/1f?_state=1"), (202, "?_state=http://x"), (201, "/v20/")],
    );
    for form in [LocationForm::Preserve, LocationForm::Relative] {
        keep(&client(form), &[(202, UPLOAD), (301, "/v2/")]);
    }
}

#[test]
fn l9_relative_leaves_the_path_alone() {
    let client = client(LocationForm::Relative);
    for name in [EXTERNAL, "http://gitlab.example.com", "http://127.0.0.1:5000", "//registry:5000"] {
        hold(&client, &[(202, &format!("{name}{UPLOAD}"), UPLOAD)]);
    }
    hold(
        &client,
        &[
            (202, EXTERNAL, "/"),
            (202, "http://registry:5000?x=1", "/?x=1"),
            // As a path this would be somebody else's host.
            (202, "http://registry:5000//evil.example/v2/", &format!("{EXTERNAL}//evil.example/v2/")),
        ],
    );
}

#[test]
fn l10_content_for_strangers_is_a_concern_and_with_strict_refused() {
    let strict = Client::of(Upstream { strict: true, ..upstream() });
    for status in [201, 202, 204] {
        for elsewhere in
            ["https://evil.example/v2/a/blobs/uploads/1", "//evil.example/v2/", "http://127.0.0.1:6000/v2/"]
        {
            let line = client(LocationForm::Absolute).gets_line(status, "Location", elsewhere);
            assert_eq!(line, (elsewhere.to_owned(), true));
            let refused = strict.gets(status, &[("Location", elsewhere)]).unwrap_err();
            assert!(matches!(refused.0, Concern::Upload(_)), "{refused}");
        }
    }
}

#[test]
fn l10_a_redirect_that_takes_content_along_is_one_too() {
    let elsewhere = [("Location", "https://evil.example/v2/")];
    for method in [Method::POST, Method::PATCH, Method::PUT] {
        let client = Client { method, ..Client::of(Upstream { strict: true, ..upstream() }) };
        for status in [307, 308] {
            assert!(client.gets(status, &elsewhere).is_err(), "{} {status}", client.method);
        }
        assert_eq!(client.gets(303, &elsewhere).unwrap().1, None);
    }
}

#[test]
fn l11_what_cannot_be_understood_is_a_concern_and_with_strict_refused() {
    let strict = Client::of(Upstream { strict: true, ..upstream() });
    for odd in [
        "https:\\\\evil.example\\v2\\",
        "/\\evil.example/v2/",
        "https://user:password@gitlab.example.com:5050/v2/",
        "https://",
        "https:///v2/",
        "//",
        "https://gitlab.example.com:/v2/",
        "https://gitlab.example.com:99999/v2/",
        "ftp://gitlab.example.com/v2/",
        "javascript:alert(1)",
        "https, http://gitlab.example.com:5050/v2/",
        "%5Chttps://%5Cgitlab.example.com/v2/",
        "https://gitlab.example.com\t/v2/",
        "https://gitlab.exämple.com/v2/",
    ] {
        for status in [202, 307] {
            let line = client(LocationForm::Absolute).gets_line(status, "Location", odd);
            assert_eq!(line, (odd.to_owned(), true));
            let refused = strict.gets(status, &[("Location", odd)]).unwrap_err();
            assert_eq!(refused.0, Concern::Unreadable("Location"));
        }
    }
}

#[test]
fn a_second_line_is_put_right_as_well() {
    let headers = [("Location", EXTERNAL), ("location", "/v2/x"), ("LOCATION", "http://registry:5000/v2/y")];
    let (answer, _) = client(LocationForm::Absolute).gets(202, &headers).unwrap();
    let lines: Vec<_> = answer.headers.get_all("location").iter().collect();
    assert_eq!(lines, [EXTERNAL, &format!("{EXTERNAL}/v2/x"), &format!("{EXTERNAL}/v2/y")]);
}

/// Whatever Distribution was told (rows 1 to 14 of what it makes of headers, without us in between), its answer leads to
/// the origin that the client used.
#[test]
fn whatever_a_registry_was_told_its_answer_leads_back() {
    for (row, said) in [
        (1, "https://gitlab.example.com:5050"),
        (2, "http://gitlab.example.com:5050"),
        (3, "http://gitlab.example.com:5050"),
        (4, "https://gitlab.example.com"),
        (5, "https://127.0.0.1:5000"),
        (5, "https://registry:5000"),
        (6, "http://gitlab.example.com:5050"),
        (8, "https://gitlab.example.com"),
        (9, "https://gitlab.example.com"),
        (11, "http://gitlab.example.com:5050"),
        (12, "https://registry.example.com"),
        (13, ""),
    ] {
        for (form, heard) in [
            (LocationForm::Absolute, format!("{EXTERNAL}{UPLOAD}")),
            (LocationForm::Relative, UPLOAD.to_owned()),
            (LocationForm::Preserve, format!("{}{UPLOAD}", if row == 13 { "" } else { EXTERNAL })),
        ] {
            let line = client(form).gets_line(202, "Location", &format!("{said}{UPLOAD}"));
            assert_eq!(line, (heard, false), "row {row}, {form:?}");
        }
    }
    // Rows 7, 10 and 14 cannot be put right, and do not come from what we tell a registry: see the requests.
    for said in ["https, http://gitlab.example.com:5050", "https://evil.test", "%5Chttps://%5Cgitlab.example.com"] {
        let strict = Client::of(Upstream { strict: true, ..upstream() });
        assert!(strict.gets(202, &[("Location", &format!("{said}{UPLOAD}"))]).is_err(), "{said}");
    }
}
