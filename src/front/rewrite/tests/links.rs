use super::*;

fn edited(line: &str) -> (String, bool) {
    Client::of(upstream()).gets_line(200, "Link", line)
}

#[test]
fn the_next_page_is_put_right_and_other_links_stay() {
    for (said, heard) in [
        ("</v2/_catalog?last=a%2Fb&n=2>; rel=\"next\"", "</v2/_catalog?last=a%2Fb&n=2>; rel=\"next\""),
        ("<http://registry:5000/v2/x?n=1>; rel=\"next\"", "<https://gitlab.example.com:5050/v2/x?n=1>; rel=\"next\""),
        ("<http://gitlab.example.com/v2/x>;rel=next", "<https://gitlab.example.com:5050/v2/x>;rel=next"),
        (
            "<http://registry:5000/v2/x>; title=\"a, b; rel=x\"; REL=\"last Next\"",
            "<https://gitlab.example.com:5050/v2/x>; title=\"a, b; rel=x\"; REL=\"last Next\"",
        ),
        (
            "<http://registry:5000/a>; rel=prev, <http://registry:5000/v2/b>; rel=next , </c>",
            "<http://registry:5000/a>; rel=prev, <https://gitlab.example.com:5050/v2/b>; rel=next , </c>",
        ),
        ("<http://registry:5000/v2/x>; rel=\"nextish\"", "<http://registry:5000/v2/x>; rel=\"nextish\""),
        ("<http://registry:5000/v2/x>; rel=prev; rel=next", "<http://registry:5000/v2/x>; rel=prev; rel=next"),
        ("<https://gitlab.example.com/help>; rel=next", "<https://gitlab.example.com/help>; rel=next"),
        ("garbage, <http://registry:5000/v2/x>; rel=next", "garbage, <http://registry:5000/v2/x>; rel=next"),
        ("<http://registry:5000/v2/x", "<http://registry:5000/v2/x"),
        ("", ""),
    ] {
        assert_eq!(edited(said), (heard.to_owned(), false), "{said}");
    }
}

#[test]
fn relative_makes_a_path_of_it() {
    let client = Client::of(Upstream { location: LocationForm::Relative, ..upstream() });
    let line = client.gets_line(200, "Link", "<http://registry:5000/v2/x?n=1>; rel=\"next\"");
    assert_eq!(line, ("</v2/x?n=1>; rel=\"next\"".to_owned(), false));
}

#[test]
fn a_list_that_a_stranger_continues_is_a_concern_and_with_strict_refused() {
    let strict = Client::of(Upstream { strict: true, ..upstream() });
    for said in ["<https://evil.example/v2/_catalog>; rel=next", "<https://a@gitlab.example.com/v2/>; rel=next"] {
        assert_eq!(edited(said), (said.to_owned(), true));
        assert!(strict.gets(200, &[("Link", said)]).is_err());
    }
}
