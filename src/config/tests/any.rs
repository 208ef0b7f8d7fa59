//! What holds for every configuration.

use std::path::Path;

use proptest::prelude::*;

use super::super::*;
use super::{Desk, machine, meaning};

/// Good values of many keys, some of them written.
fn good_files() -> impl Strategy<Value = String> {
    let seconds = (1..=3600u64).prop_map(|seconds| format!("{seconds}s"));
    let line = |key: &'static str, value: BoxedStrategy<String>| {
        proptest::option::of(value).prop_map(move |value| value.map(|value| (key, value)))
    };
    let limits = (65_536..=67_108_864u64, 20..=200u64).prop_map(|(size, number)| {
        format!(
            "{size}, connections: {number}, connections_per_client: {number}, streams: {number}, header: {number}KiB, \
             fields: {number}, target: 3KiB, blob: {size}KiB, uploads: {number}, anonymous: {number}/s"
        )
    });
    let text = "[a-zA-Z0-9~#:&*!|>%@,{}\\[\\]._-]{1,12}".prop_map(|text| format!("'{text}'"));
    let path =
        "[a-zA-Z0-9 #:&*!'|>%@,{}\\[\\]._\u{e9}-]{1,12}".prop_map(|text| format!("'./{}'", text.replace('\'', "''")));
    let origin = "https?://[a-z]{1,8}(\\.example)?(:[6-9][0-9]{3})?".prop_map(|text| format!("'{text}'"));
    let entries = vec![
        line("external_url", origin.boxed()),
        line("state", path.clone().boxed()),
        line(
            "tls: {policy: modern, hsts: ",
            (prop::sample::select(vec!["off", "0s", "3d"]), path.clone(), path.clone())
                .prop_map(|(time, path, other)| {
                    format!(
                        "{time}, local: {path}, acme: {{enabled: false, storage: {other}}}, client_auth: {{mode: off}}"
                    )
                })
                .boxed(),
        ),
        line("token: {service: ", text.clone().boxed()),
        line("registry: {http: {addr: ", (1000..=4999u16).prop_map(|port| format!("'127.0.0.1:{port}'")).boxed()),
        line("limits: {manifest: ", limits.boxed()),
        line("metrics: {address: ", prop::sample::select(vec!["off", "'[::]:5008'"]).prop_map(str::to_owned).boxed()),
        line("timeouts: {minimum_rate: 7KiB, stall: ", seconds.boxed()),
        line("log: {level: ", prop::sample::select(vec!["error", "trace"]).prop_map(str::to_owned).boxed()),
        line("accounts: {members_may_create_projects: ", any::<bool>().prop_map(|flag| flag.to_string()).boxed()),
    ];
    entries.prop_map(|entries| {
        let write = |(key, value): (&str, String)| match key.matches('{').count() {
            0 => format!("{key}: {value}\n"),
            open => format!("{key}{value}{}\n", "}".repeat(open)),
        };
        entries.into_iter().flatten().map(write).collect()
    })
}

/// Configurations as a tired operator writes them: known words in the wrong places.
fn tired_files() -> impl Strategy<Value = String> {
    let words = "external_url aliases state user listeners address tls certificates certificate key local registry redirect \
         trusted_proxies proxy_protocol internal allow deny pull push systemd unix:a 10.0.0.0/8 optional https \
         acme enabled challenges contact eab dns hook client_auth mode names crl ticket_keys dns-01 required \
         storage filesystem rootdirectory http addr token path duration limits manifest log level https://a.example 5m \
         upstreams routes peers url weight to upstream embedded answer body health ejection realms set remove host methods GET \
         4MiB 10/m true off null :5050 ' \" *a &a !b [] {} << /v2 \u{e9}";
    let word = || prop::sample::select(words.split(' ').collect::<Vec<_>>());
    let line = (0..4usize, any::<bool>(), word(), word(), 0..4u8);
    prop::collection::vec(line, 0..30).prop_map(|lines| {
        let line = |(depth, dash, key, value, form): (usize, bool, &str, &str, u8)| {
            let value = match form {
                0 => String::new(),
                1 => format!("[{value}]"),
                2 => format!("{{{value}: {key}}}"),
                _ => value.to_owned(),
            };
            format!("{}{}{key}: {value}\n", "  ".repeat(depth), if dash { "- " } else { "" })
        };
        lines.into_iter().map(line).collect()
    })
}

proptest! {
    #[test]
    fn every_page_loads_as_what_it_shows(text in good_files()) {
        let desk = Desk::new();
        let settings = desk.good(&text, "");
        let page = show(&settings);
        prop_assert_eq!(meaning(desk.good(&page, "")), meaning(settings), "{}", page);
    }

    #[test]
    fn no_configuration_makes_us_panic(text in tired_files(), variable in "[A-Z_]{0,20}", value in ".{0,30}") {
        let desk = Desk::new();
        desk.put("a.yml", &text);
        let environment = [(format!("PIERHEAD_{variable}"), value)];
        if let Err(problems) = load(Some(Path::new("a.yml")), environment, &machine(desk.path())) {
            prop_assert!(problems.iter().count() > 0);
            prop_assert!(problems.iter().all(|problem| !problem.to_string().contains('\n')), "{}", problems);
        }
    }
}
