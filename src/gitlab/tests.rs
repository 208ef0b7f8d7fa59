//! Claims about whole files, and about what they come to.

use std::path::Path;

use super::*;

fn nothing_exists(_: &Path) -> bool {
    false
}

fn imported(text: &str, format: Format, mode: Mode) -> Imported {
    let site = Site { file: "source", mode, exists: &nothing_exists };
    match format {
        Format::GitlabRb => gitlab_rb(text, &site),
        Format::Nginx => nginx_block(text, &site),
        Format::GitlabYml => panic!("its leaves come from the reader of YAML"),
    }
}

fn front(text: &str) -> Imported {
    imported(text, Format::GitlabRb, Mode::Front)
}

fn page(imported: &Imported) -> &str {
    imported.configuration.as_deref().expect("a configuration")
}

const SHARED: &str = "external_url 'https://gitlab.test'\nregistry_external_url 'https://gitlab.test:5050'\n";

#[test]
fn files_are_recognised_by_what_is_in_them() {
    let cases = [
        ("# a comment\nexternal_url 'https://a'", Some(Format::GitlabRb)),
        ("registry['enable'] = true", Some(Format::GitlabRb)),
        ("roles ['application_role']", Some(Format::GitlabRb)),
        ("# a\nserver {\n listen 80;\n}", Some(Format::Nginx)),
        ("upstream registry {", Some(Format::Nginx)),
        ("production: &base\n  gitlab:\n", Some(Format::GitlabYml)),
        ("registry:\n  enabled: true\n", Some(Format::GitlabYml)),
        ("hello world", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(recognise(text), expected, "{text}");
    }
}

#[test]
fn the_new_spelling_counts_wherever_it_stands() {
    for text in [
        "registry['nginx']['listen_port'] = 5678\nregistry_nginx['listen_port'] = 1\n",
        "registry_nginx['listen_port'] = 1\nregistry['nginx']['listen_port'] = 5678\n",
        "registry_nginx['listen_port'] = 1\nregistry['nginx'] = { listen_port: '5678' }\n",
    ] {
        let imported = front(&format!("{SHARED}{text}"));
        assert!(page(&imported).contains("address: \":5678\""), "{}", page(&imported));
        assert!(imported.report.contains("counts"), "{}", imported.report);
    }
}

#[test]
fn the_last_of_several_assignments_counts_but_not_one_that_only_running_could_tell() {
    let text = "registry_nginx['listen_port'] = 1\nregistry_nginx['listen_port'] = 2\nregistry_nginx['listen_port'] = 3 if x\n";
    let imported = front(&format!("{SHARED}{text}"));
    assert!(page(&imported).contains("address: \":2\""), "{}", page(&imported));
    assert!(imported.report.contains("source:3: registry_nginx['listen_port']: line 4 counts"), "{}", imported.report);
    assert!(
        page(&imported).contains("#   line 5: registry_nginx['listen_port']: only running it could tell"),
        "{}",
        page(&imported)
    );
}

#[test]
fn whatever_speaks_of_the_registry_in_another_way_is_left_to_the_operator() {
    for line in [
        "from_file '/etc/gitlab/registry-acl.rb'",
        "from_file '/etc/gitlab/more.rb'",
        "eval File.read('/etc/gitlab/x.rb')",
        "require '/etc/gitlab/x.rb'",
        "{ 'ssl_verify_client' => 'on' }.each { |k, v| registry_nginx[k] = v }",
        "ENV['Z'] && registry_nginx['listen_port'] = 8888",
        "(registry_nginx['listen_port'] = 9999) if ENV['Z']",
        "lambda { registry_nginx['listen_port'] = 1010 }",
        "Gitlab['registry']['enable'] = true",
        "default['registry']['x'] = 1",
        "n = registry_nginx",
        "return if ENV['HA']",
        "if (registry_nginx['listen_port'] = 1)\nend",
        "[1].each do\nend.each { registry_nginx['x'] = 1 }",
    ] {
        let imported = front(&format!("{SHARED}{line}\n"));
        let left = imported.ledger.lines().iter().any(|l| l.line >= 3 && matches!(l.fate, Fate::Yours(_)));
        assert!(left && page(&imported).contains("TODO"), "{line}: {}", imported.report);
    }
    let guarded = front(&format!("{SHARED}lambda {{ registry_nginx['ssl_verify_client'] = 'on' }}\n"));
    assert!(guarded.report.contains("PROTECTION LOST"), "{}", guarded.report);
    let other = front(&format!(
        "{SHARED}gitlab_rails['x'] = ENV['Y']\nputs 'x'\ngitlab_rails['ldap_servers'] = YAML.load <<-'EOS'\n main:\n  label: 'LDAP'\nEOS\n"
    ));
    assert!(!other.report.contains("Left to you"), "{}", other.report);
}

#[test]
fn a_default_beats_nothing_that_says_something() {
    let port = |text: &str| {
        let imported = front(&format!("{SHARED}{text}"));
        (page(&imported).lines().find(|line| line.contains("address")).unwrap().trim().to_owned(), imported.report)
    };
    let (address, report) = port("registry_nginx['listen_port'] = 5678\nregistry_nginx['listen_port'] ||= 5999\n");
    assert_eq!(address, "- address: \":5678\"");
    assert!(report.contains("source:4: registry_nginx['listen_port']: line 3 counts"), "{report}");
    assert_eq!(port("registry_nginx['listen_port'] ||= 5999\n").0, "- address: \":5999\"");
    assert_eq!(
        port("registry_nginx['listen_port'] = nil\nregistry_nginx['listen_port'] ||= 5999\n").0,
        "- address: \":5999\""
    );
    let (address, report) = port("registry_nginx['listen_port'] = ENV['P']\nregistry_nginx['listen_port'] ||= 5999\n");
    assert_eq!(address, "- address: \":5050\"");
    assert!(report.contains("it counts only where line 3 says nothing"), "{report}");
}

#[test]
fn a_file_with_many_settings_is_read_in_a_moment() {
    let lines: String = (0..15_000).map(|number| format!("registry['x']['k{number}'] = {number}\n")).collect();
    let begun = std::time::Instant::now();
    front(&format!("{SHARED}{lines}{lines}"));
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn without_a_name_of_its_own_the_registry_is_on_port_5050_of_gitlabs() {
    let imported = front("external_url 'https://gitlab.test'\n");
    assert!(page(&imported).contains("external_url: https://gitlab.test:5050"), "{}", page(&imported));
    assert!(imported.report.contains("port 5050 of GitLab's name"));
    for off in ["registry['enable'] = false", "letsencrypt['enable'] = false\nregistry['enable'] = nil"] {
        let imported = front(&format!("external_url 'https://gitlab.test'\n{off}\n"));
        assert!(!page(&imported).contains("\nexternal_url:"), "{}", page(&imported));
        assert!(page(&imported).contains("nothing that could be read says what clients call this registry"));
    }
}

#[test]
fn what_is_about_no_registry_makes_no_configuration() {
    for text in ["gitlab_rails['time_zone'] = 'UTC'\n", "external_url 'http://gitlab.test'\n"] {
        let imported = front(text);
        assert!(imported.configuration.is_none(), "{text}");
        assert!(
            imported.report.contains("Nothing is written: nothing in it is about a registry"),
            "{}",
            imported.report
        );
    }
}

#[test]
fn addresses_that_cannot_be_read_open_no_others() {
    let allow = "registry_nginx['custom_gitlab_server_config'] = 'allow 10.0.0.0/8; deny all;'\n";
    for list in ["['registry.internal']", "ENV['A']", "['127.0.0.1', ENV['A']]", "['10.0.0.1'] if x", "['unix:/run/x']"]
    {
        let imported = front(&format!("{SHARED}{allow}registry_nginx['listen_addresses'] = {list}\n"));
        let addresses: Vec<&str> = page(&imported).lines().filter(|line| line.contains("- address:")).collect();
        assert_eq!(addresses, ["  - address: 127.0.0.1:5050"], "{list}\n{}", page(&imported));
        assert!(page(&imported).contains("    allow:\n") && page(&imported).contains("TODO"), "{}", page(&imported));
    }
    let imported = front(&format!("registry_external_url ENV['U']\n{allow}"));
    assert!(imported.configuration.is_none(), "{}", imported.report);
    assert!(imported.report.contains("would be open"), "{}", imported.report);
}

#[test]
fn an_address_is_bound_once() {
    let addresses = |list: &str| {
        let imported = front(&format!("{SHARED}registry_nginx['listen_addresses'] = {list}\n"));
        let lines = page(&imported).lines().filter_map(|line| line.strip_prefix("  - address: ").map(str::to_owned));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(addresses("['0.0.0.0', '[::]']"), ["\":5050\""]);
    assert_eq!(addresses("['*', '[::]', '127.0.0.1']"), ["\":5050\""]);
    assert_eq!(addresses("['10.0.0.1', '127.0.0.1']"), ["10.0.0.1:5050", "127.0.0.1:5050"]);
}

#[test]
fn networks_that_are_everybodys_are_not_trusted() {
    for wide in ["0.0.0.0/0", "::/0", "64.0.0.0/2"] {
        let text =
            format!("{SHARED}registry_nginx['real_ip_trusted_addresses'] = ['10.0.0.0/8', 'fc00::/7', '{wide}']\n");
        let imported = front(&text);
        assert!(page(&imported).contains("trusted_proxies:\n  - 10.0.0.0/8\n  - fc00::/7\n\n"), "{}", page(&imported));
        assert!(imported.report.contains("clients could write their own address"), "{}", imported.report);
        assert!(!imported.report.contains("PROTECTION LOST"), "{}", imported.report);
        let lists = "registry_nginx['custom_gitlab_server_config'] = 'allow 10.0.0.0/8; deny all;'\n";
        assert!(front(&format!("{text}{lists}")).report.contains("PROTECTION LOST"));
    }
    let imported = front(&format!("{SHARED}registry_nginx['real_ip_header'] = 'X-Real-IP'\n"));
    assert!(page(&imported).contains("#   line 3: registry_nginx['real_ip_header']"), "{}", page(&imported));
}

#[test]
fn a_registry_that_gitlab_does_not_run_is_where_gitlab_asks_it() {
    let text = "external_url 'https://gitlab.test'\nregistry['enable'] = false\ngitlab_rails['registry_host'] = 'registry.test'\n";
    let imported = front(&format!("{text}gitlab_rails['registry_api_url'] = 'https://registry.internal:5000'\n"));
    assert!(page(&imported).contains("      - https://registry.internal:5000\n"), "{}", page(&imported));
    assert!(!page(&imported).contains("127.0.0.1:5000"), "{}", page(&imported));
    assert!(imported.report.contains("its certificate is verified"), "{}", imported.report);
    assert!(!imported.report.contains("registry['nginx']['enable'] = "), "{}", imported.report);
    assert!(imported.report.contains("take it out of whatever does"), "{}", imported.report);
    let imported = front(text);
    assert!(imported.report.contains("is a guess") && page(&imported).contains("is a guess"), "{}", imported.report);
}

#[test]
fn what_is_nested_in_raw_text_is_named_one_by_one() {
    let raw = "location /v2/_catalog { deny all; }\nlocation ^~ /v2/admin {\n allow 10.0.0.0/8;\n deny all;\n set $x 1;\n}\n\
               if ($http_x != 'hush') { return 403; }\n";
    let imported = front(&format!("{SHARED}registry_nginx['custom_gitlab_server_config'] = <<'EOS'\n{raw}EOS\n"));
    for line in [
        "source:4: custom_gitlab_server_config: location /v2/_catalog: deny: PROTECTION LOST: ",
        "source:6: custom_gitlab_server_config: location ^~ /v2/admin: allow: PROTECTION LOST: ",
        "source:7: custom_gitlab_server_config: location ^~ /v2/admin: deny: PROTECTION LOST: ",
        "source:8: custom_gitlab_server_config: location ^~ /v2/admin: set: ",
        "source:10: custom_gitlab_server_config: if: return: PROTECTION LOST: ",
    ] {
        assert!(imported.report.contains(line), "{line}\n{}", imported.report);
    }
    assert!(page(&imported).contains("#   line 7: custom_gitlab_server_config: location ^~ /v2/admin: deny"));
}

#[test]
fn the_hand_over_makes_the_user_who_reads_the_file_and_the_key() {
    let report = front(SHARED).report;
    for part in [
        "  useradd --system --user-group --home-dir /var/lib/pierhead --shell /usr/sbin/nologin pierhead\n",
        "  install -d -o root -g pierhead -m 750 /etc/pierhead\n",
        "  install -d -o pierhead -g pierhead -m 700 /var/lib/pierhead\n",
        "  chown root:pierhead /etc/pierhead/pierhead.yml /etc/gitlab/ssl/gitlab.test.key\n",
        "  chmod 640 /etc/pierhead/pierhead.yml /etc/gitlab/ssl/gitlab.test.key\n",
        "curl -si https://gitlab.test:5050/v2/",
    ] {
        assert!(report.contains(part), "{part}\n{report}");
    }
    // Who serves a tree becomes its owner.
    let report = imported(SHARED, Format::GitlabRb, Mode::Embedded).report;
    let root = "/var/opt/gitlab/gitlab-rails/shared/registry";
    assert!(report.contains(&format!("owner=$(stat -c %U {root}) group=$(stat -c %G {root})\n")), "{report}");
    assert!(report.contains("chown root:\"$group\" ") && !report.contains("useradd"), "{report}");
    let plain = "external_url 'http://gitlab.test'\nregistry_external_url 'http://gitlab.test:5050'\n";
    assert!(front(plain).report.contains("curl -si http://gitlab.test:5050/v2/"));
    let odd = format!("{SHARED}registry_nginx['ssl_certificate_key'] = '/k; rm -rf \\'x'\n");
    assert!(front(&odd).report.contains("'/k; rm -rf '\\''x'"), "{}", front(&odd).report);
}

#[test]
fn the_hand_over_says_what_gitlab_is_told_before_19_2_and_since_and_how_to_go_back() {
    let from = |report: &str, part: &str| {
        let at = report.find(part).unwrap_or_else(|| panic!("{part}\n{report}"));
        report[at..].to_owned()
    };
    let report = front(SHARED).report;
    let over = "Hand over:\n\n  # in /etc/gitlab/gitlab.rb (up to GitLab 19.1: registry_nginx['enable'] = false)\n  \
                registry['nginx']['enable'] = false\n\n  gitlab-ctl reconfigure\n  systemctl enable --now pierhead\n";
    assert!(from(&report, "Hand over:").starts_with(over), "{report}");
    let back = "And back:\n\n  systemctl disable --now pierhead\n  # in /etc/gitlab/gitlab.rb: take that line out again\n\n  \
                gitlab-ctl reconfigure\n";
    assert_eq!(from(&report, "And back:"), back);

    let report = imported(SHARED, Format::GitlabRb, Mode::Embedded).report;
    let over = "Hand over:\n\n  # in /etc/gitlab/gitlab.rb (up to GitLab 19.1: registry_nginx['enable'] = false)\n  \
                registry['enable'] = false\n  registry['nginx']['enable'] = false\n  \
                gitlab_rails['registry_enabled'] = true\n  gitlab_rails['registry_host'] = 'gitlab.test'\n  \
                gitlab_rails['registry_port'] = '5050'\n";
    assert!(from(&report, "Hand over:").starts_with(over), "{report}");
    let back = "And back:\n\n  systemctl disable --now pierhead\n  # in /etc/gitlab/gitlab.rb: take these lines away again\n\n  \
                gitlab-ctl reconfigure\n";
    assert_eq!(from(&report, "And back:"), back);

    // An NGINX of one's own knows nothing of versions.
    let block = "server {\n listen 443 ssl;\n server_name registry.test;\n location / {\n proxy_pass http://127.0.0.1:5000;\n }\n}\n";
    let report = imported(block, Format::Nginx, Mode::Front).report;
    assert!(!report.contains("19.1"), "{report}");
    let back = "And back:\n\n  systemctl disable --now pierhead\n  # put the server block back, then\n  nginx -t && systemctl \
                reload nginx\n";
    assert_eq!(from(&report, "And back:"), back);
}

#[test]
fn a_name_from_the_environment_is_left_to_the_operator() {
    let imported = front("external_url 'https://gitlab.test'\nregistry_external_url ENV['REGISTRY']\n");
    assert!(!page(&imported).contains("\nexternal_url:"), "{}", page(&imported));
    assert!(
        imported.report.contains(
            "source:2: registry_external_url: only running it could tell (the environment (ENV['REGISTRY']))"
        )
    );
}

#[test]
fn the_certificate_is_the_one_that_omnibus_shows() {
    let own = "external_url 'https://gitlab.test'\nregistry_external_url 'https://registry.test'\n";
    let cases: [(&str, &[&str], &str); 5] = [
        ("", &[], "registry.test"),
        ("", &["/etc/gitlab/ssl/gitlab.test.crt"], "gitlab.test"),
        ("", &["/etc/gitlab/ssl/gitlab.test.crt", "/etc/gitlab/ssl/registry.test.crt"], "registry.test"),
        ("letsencrypt['enable'] = true", &[], "gitlab.test"),
        ("letsencrypt['enable'] = false", &["/etc/gitlab/ssl/gitlab.test.crt"], "registry.test"),
    ];
    for (more, files, expected) in cases {
        let exists = |path: &Path| files.iter().any(|file| Path::new(file) == path);
        let site = Site { file: "source", mode: Mode::Front, exists: &exists };
        let imported = gitlab_rb(&format!("{own}{more}"), &site);
        assert!(page(&imported).contains(&format!("certificate: /etc/gitlab/ssl/{expected}.crt")), "{more} {files:?}");
    }
}

#[test]
fn a_proxys_header_is_believed_only_from_whom_the_file_names() {
    let on = "registry_nginx['proxy_protocol'] = true\n";
    let imported = front(&format!("{SHARED}{on}"));
    assert!(!page(&imported).contains("    proxy_protocol: required\n"), "{}", page(&imported));
    assert!(imported.report.contains("nothing says whose PROXY header is to be believed"));
    let imported =
        front(&format!("{SHARED}{on}registry_nginx['real_ip_trusted_addresses'] = ['10.1.2.3/8', 'lb.test']\n"));
    assert!(page(&imported).contains("    proxy_protocol: required\n") && page(&imported).contains("- 10.0.0.0/8\n"));
    assert!(imported.report.contains("write those that are names or sockets yourself"));
}

#[test]
fn images_that_cannot_be_served_are_a_reason_to_write_nothing() {
    for text in
        ["registry['storage'] = { 's3' => { 'bucket' => 'b' } }", "registry['database'] = { 'enabled' => true }"]
    {
        let text = format!("{SHARED}{text}\n");
        let embedded = imported(&text, Format::GitlabRb, Mode::Embedded);
        assert!(
            embedded.configuration.is_none() && embedded.report.contains("Nothing is written: "),
            "{}",
            embedded.report
        );
        assert!(front(&text).configuration.is_some());
    }
}

#[test]
fn no_secret_is_in_the_report() {
    let text = format!(
        "{SHARED}registry['http_secret'] = 'hush'\ngitlab_rails['registry_notification_secret'] = \"hush\"\n\
         registry['storage'] = {{ 's3' => {{ 'secretkey' => 'hush' }} }}\nfoo 'hush', 'hush'\nregistry['x'] << 'hush'\n\
         registry['http_secret'] = \"hush#{{x}}\"\nregistry_nginx['proxy_set_headers'] = {{ 'X-Key' => 'hush' }}\n"
    );
    for mode in [Mode::Front, Mode::Embedded] {
        let report = imported(&text, Format::GitlabRb, mode).report;
        assert!(!report.contains("hush"), "{report}");
    }
}

#[test]
fn a_secret_is_taken_along() {
    let text = format!("{SHARED}registry['http_secret'] = 'hush: #'\n");
    let embedded = imported(&text, Format::GitlabRb, Mode::Embedded);
    assert!(page(&embedded).contains("    secret: \"hush: #\"\n"), "{}", page(&embedded));
    assert!(!page(&front(&text)).contains("hush"));
}

#[test]
fn orders_of_allow_and_deny_that_mean_something_else_are_not_translated() {
    let server = |rules: &str| {
        let text = format!(
            "server {{ listen 443 ssl; server_name a.test; {rules} location / {{ proxy_pass http://127.0.0.1:5000; }} }}"
        );
        imported(&text, Format::Nginx, Mode::Front)
    };
    let cases = [
        ("allow 10.0.0.0/8; deny all;", true, "allow"),
        ("deny 10.0.0.0/8;", true, "deny"),
        ("deny 10.1.0.0/16; allow 10.0.0.0/8; deny all;", true, "allow"),
        ("allow 10.1.0.0/16; deny 10.0.0.0/8; allow all;", false, ""),
        ("deny all;", false, ""),
        ("allow all; deny 10.0.0.0/8;", false, ""),
        ("allow unix:; deny all;", false, ""),
    ];
    for (rules, translated, key) in cases {
        let imported = server(rules);
        assert_eq!(!imported.report.contains("PROTECTION LOST"), translated, "{rules}: {}", imported.report);
        assert_eq!(translated, !key.is_empty() && page(&imported).contains(&format!("    {key}:\n")), "{rules}");
    }
}

#[test]
fn locations_become_routes() {
    let text = "server { listen 443 ssl; server_name a.test;\n location /v2/ { proxy_pass http://127.0.0.1:5000; }\n \
                location /jwt/ { proxy_pass http://127.0.0.1:8080; }\n location /x { proxy_pass http://127.0.0.1:8081; }\n location /ui { return 308 https://gitlab.test/; }\n \
                location ~ ^/x { proxy_pass http://127.0.0.1:1; }\n location / { return 404; } }";
    let imported = imported(text, Format::Nginx, Mode::Front);
    for part in [
        "  - path: /v2/\n    to:\n      upstream: gitlab\n",
        "  - path: /x\n    to:\n      upstream: route1\n",
        "token:\n  upstream: tokens\n",
        "  tokens:\n    peers:\n      - http://127.0.0.1:8080\n",
        "  - path: /ui\n    to:\n      redirect: https://gitlab.test/\n      status: 308\n",
        "  route1:\n    peers:\n      - http://127.0.0.1:8081\n",
    ] {
        assert!(page(&imported).contains(part), "{part}\n{}", page(&imported));
    }
    assert!(imported.report.contains("location ~ ^/x: a pattern"), "{}", imported.report);
}

#[test]
fn what_is_behind_a_load_balancer_keeps_the_port_of_its_clients() {
    let text = "server { listen 5678; server_name a.test; location / { proxy_set_header X-Forwarded-Proto https; proxy_pass http://127.0.0.1:5000; } }";
    let imported = imported(text, Format::Nginx, Mode::Front);
    assert!(page(&imported).contains("external_url: https://a.test\n"), "{}", page(&imported));
    assert!(page(&imported).contains("  - address: \":5678\"\n    tls: false\n"), "{}", page(&imported));
}

#[test]
fn ruby_in_a_gitlab_yml_is_marked_and_its_lines_stay() {
    assert_eq!(without_erb("a: <%= x\n %>\nb: <% y").text, "a: __ERB__\n\nb: __ERB__");
    let plain =
        without_erb("a: 1\n<% if x\n -%>\nb: 2\n  <% y.each do |z| %>\nc: <%= z %>\n<% end %>\n<% end %>\nd: 3\n");
    assert_eq!(plain.text, "a: 1\n#\n\n\n#\n\n#\n#\nd: 3\n");
}

proptest::proptest! {
    #[test]
    fn no_settings_make_it_panic(
        text in "((registry|registry_nginx|gitlab_rails|nginx|external_url|registry_external_url|letsencrypt)(\\['(nginx|storage|env|listen_port|ssl_protocols|filesystem|custom_gitlab_server_config|proxy_set_headers|database)'\\]){0,3} = ?('[a-z:/.0-9{;}]{0,12}'|nil|\\[\\]|\\{\\}|[0-9]{1,6}|\\{a: 1\\})\n){0,12}",
    ) {
        for mode in [Mode::Front, Mode::Embedded] {
            imported(&text, Format::GitlabRb, mode);
        }
    }

    #[test]
    fn no_directives_make_it_panic(
        text in "((server|location|upstream|listen|server_name|proxy_pass|return|allow|deny|add_header|ssl_protocols|client_max_body_size|keepalive_timeout)( [a-z0-9:/.$*~=-]{0,10}){0,3}( ?[;{}]){1,2}\n?){0,24}",
    ) {
        for mode in [Mode::Front, Mode::Embedded] {
            imported(&text, Format::Nginx, mode);
        }
    }
}
