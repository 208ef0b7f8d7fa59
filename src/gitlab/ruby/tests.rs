//! Claims about what is read of Ruby.

use std::time::Instant;

use proptest::prelude::*;

use super::*;

/// `path = value` of each statement, as one would write it in JSON.
fn said(text: &str) -> Vec<String> {
    let show =
        |statement: Statement| format!("{} {} {}", statement.line, statement.path.join("."), show(&statement.value));
    read(text).into_iter().map(show).collect()
}

fn show(value: &Value) -> String {
    match value {
        Value::Nothing => "nil".to_owned(),
        Value::Flag(flag) => flag.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Map(entries) => {
            let entries = entries.iter().map(|entry| format!("{}@{}={}", entry.key, entry.line, show(&entry.value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
        }
        Value::Running(why) => format!("<{why}>"),
    }
}

#[test]
fn assignments_are_read_however_they_are_spelled() {
    let cases = [
        ("external_url 'https://a'", "1 external_url \"https://a\""),
        ("external_url(\"https://a\")", "1 external_url \"https://a\""),
        ("external_url = 'https://a' # why", "1 external_url \"https://a\""),
        ("registry['a']['b'] = 5_000", "1 registry.a.b \"5000\""),
        ("registry[:a][\"b\"] = :off", "1 registry.a.b \"off\""),
        ("registry.a = nil;", "1 registry.a nil"),
        ("registry['a'] ||= true", "1 registry.a true"),
        ("r['a'] = {'x' => 1, :y=>2, z: 'q', 'w': false,}", "1 r.a {x@1=\"1\" y@1=\"2\" z@1=\"q\" w@1=false}"),
        ("r['a'] = [\n 'x', # why\n 'y',\n]", "1 r.a [\"x\" \"y\"]"),
        ("r['a'] = {\n 'x' => {\n  'y' => [1] } }", "1 r.a {x@2={y@3=[\"1\"]}}"),
        ("r['a'] = %w(x y  z)", "1 r.a [\"x\" \"y\" \"z\"]"),
        ("roles %w[a b]", "1 roles [\"a\" \"b\"]"),
        ("r['a'] = 'it\\'s' \\\n 'two'", "1 r.a \"it'stwo\""),
        ("r['a'] = \"a\\tb\\n\"", "1 r.a \"a\\tb\\n\""),
        ("r['a'] = %q{a {b} c}.freeze", "1 r.a \"a {b} c\""),
        ("r['a'] =\n  'next'", "1 r.a \"next\""),
        ("r['a'] = <<~EOS\n  one\n    two\n  EOS\nb 1", "1 r.a \"one\\n  two\\n\"|5 b \"1\""),
        ("r['a'] = <<-'EOS'\n  #{one}\n  EOS\n", "1 r.a \"  #{one}\\n\""),
        ("=begin\nx = 1\n=end\ny 2\n__END__\nz = 3", "4 y \"2\""),
        ("r['a'] = {\n 'k' => <<~A,\n  x\n A\n 'l' => 2 }", "1 r.a {k@2=\"x\\n\" l@5=\"2\"}"),
        ("\u{feff}", ""),
    ];
    for (text, expected) in cases {
        assert_eq!(said(text.trim_start_matches('\u{feff}')).join("|"), expected, "{text}");
    }
}

#[test]
fn what_only_running_could_tell_is_named_and_never_counts() {
    let cases = [
        ("r['a'] = ENV['X']", "1 r.a <the environment (ENV['X'])>"),
        ("r['a'] = ENV.fetch('X', 'y') + 'b'\nb 1", "1 r.a <the environment (ENV['X'])>|2 b \"1\""),
        ("r['a'] = \"x#{h[\"}\"]}y\"\nb 1", "1 r.a <an interpolated string>|2 b \"1\""),
        ("r['a'] = <<EOS\n#{x}\nEOS\nb 1", "1 r.a <an interpolated heredoc>|4 b \"1\""),
        ("r['a'] = File.read('/x').strip", "1 r.a <a call of File>"),
        ("r['a'] = 'x' + y", "1 r.a <an expression>"),
        ("r['a'] = y ? 1 : 2", "1 r.a <the value of y>"),
        ("r['a'] = [1, x, 'b']", "1 r.a [\"1\" <the value of x> \"b\"]"),
        ("r['a'] = 1 if x", "1 r.a <it depends on `if`>"),
        ("r['a'] << 'x'", "1 r.a <Ruby that is more than an assignment>"),
        (
            "if x\n r['a'] = 1\nelse\n r['a'] = 2\nend\nb 1",
            "2 r.a <inside `if` of line 1>|4 r.a <inside `if` of line 1>|6 b \"1\"",
        ),
        ("if x then r['a'] = 1 end\nb 1", "1 r.a <inside `if` of line 1>|2 b \"1\""),
        (
            "x.each do |y|\n a y\nend\nb 1",
            "1 x.each <Ruby that is more than an assignment>|2 a <inside `do` of line 1>|4 b \"1\"",
        ),
        ("r['a'] = if x\n 1\nelse\n 2\nend\nb 1", "1 r.a <a condition>"),
        ("a 'x', 'y'\nb 1", "1 a <an expression>|2 b \"1\""),
        ("a 'x\nb 1", "1 a <a string without an end: nothing behind it was read>"),
        (
            "a << 'x\nb 1",
            "1 a <Ruby that is more than an assignment>|1 the rest of the file <a string without an end: nothing behind it was read>",
        ),
    ];
    for (text, expected) in cases {
        assert!(said(text).join("|").starts_with(expected), "{text}\n{}\n{expected}", said(text).join("|"));
    }
    assert_eq!(said("r['a'] = if x\n 1\nelse\n 2\nend\nb 1").last().unwrap(), "6 b \"1\"");
}

#[test]
fn quotes_in_patterns_letters_and_other_literals_hide_no_setting() {
    for odd in [
        "x = 1 if node =~ /it's/",
        "if x =~ /it's/ then y end",
        "puts %q(don't)",
        "puts x if a == ?'",
        "x = ?'",
        "x = ?\"",
        "y.gsub(%r{'/\"}, 'a')",
        "puts /['\"]/.match(z)",
        "a.split(/'/).map { |w| w }",
        "n = 10 / 2",
        "n = a / b; m = c / d",
        "n = `it's`",
        "p \"#{h['it']}\", 'x'",
        "t = a ? 'b' : 'c'",
    ] {
        let said = said(&format!("{odd}\nr['a'] = 'on'\n{odd}\nr['b'] = 'off'\n"));
        assert!(said.iter().any(|line| line == "2 r.a \"on\""), "{odd}: {said:#?}");
        assert!(said.iter().any(|line| line == "4 r.b \"off\""), "{odd}: {said:#?}");
    }
}

#[test]
fn a_string_that_runs_over_lines_is_never_skipped_in_silence() {
    let found = said("x << 'a\nr['q'] = 1\nb'\nr['a'] = 2\n").join("|");
    assert!(found.contains("lines 1 to 2 <not read from line 1 to line 2"), "{found}");
    let found = said("x << <<~A\n a\n").join("|");
    assert!(found.contains("the rest of the file"), "{found}");
}

#[test]
fn nothing_of_a_block_counts_wherever_its_end_seems_to_be() {
    for text in [
        "if x\n a.map do |y|\n  y\n end.each do |z|\n  z\n end\n r['a'] = 1\nend",
        "if x\n y = 1 + if z\n  1\n else\n  2\n end\n r['a'] = 1\nend",
        "if list.any? do |x| x end\n r['a'] = 1\nend",
        "if x\n y.end\n y = :end\n foo end: 5\n r['a'] = 1\nend",
        "if x\n begin\n  1\n end while false\n r['a'] = 1\nend",
        "if x then b 1 else r['a'] = 1 end",
        "if x then r['a'] = 2 else r['a'] = 1 end",
    ] {
        let said = said(&format!("{text}\nr['b'] = 2"));
        let inside = said.iter().filter(|line| line.contains(" r.a ")).collect::<Vec<_>>();
        assert!(!inside.is_empty() && inside.iter().all(|line| line.contains("<inside `")), "{text}: {said:#?}");
        assert!(said.last().unwrap().ends_with(" r.b \"2\""), "{text}: {said:#?}");
    }
    assert_eq!(said("if x then r['a'] = 2 else r['a'] = 1 end").len(), 2);
}

#[test]
fn of_the_environment_only_the_name_is_shown() {
    for (text, shown) in [
        ("a ENV.fetch(NAME, 'hunter2')", "ENV"),
        ("a ENV[NAME] || 'hunter2'", "ENV"),
        ("a ENV.fetch('hunter 2', '')", "ENV"),
        ("a ENV.fetch('NAME', 'hunter2')", "ENV['NAME']"),
    ] {
        assert_eq!(said(text), [format!("1 a <the environment ({shown})>")]);
    }
}

#[test]
fn nothing_takes_longer_than_its_length() {
    let units = [
        "a[",
        "[",
        "{",
        "a = <<A\n",
        "'",
        "\"#{",
        "if x\n",
        "a = [",
        "%w(",
        "a['",
        "x = {a: ",
        "a\\\n",
        "=begin\n",
        "end\n",
        "a = b +\n",
        "<<A",
        "a +if ",
        "x /[ ",
        "x %(",
        "x ?' ",
    ];
    for unit in units {
        let begun = Instant::now();
        read(&unit.repeat(200_000 / unit.len()));
        assert!(begun.elapsed().as_secs() < 5, "{unit:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn no_ruby_makes_it_panic(text in "([a-z]{1,2}|['\"\\[\\]{}()#\\\\<~%=>:,. \n|?]|if|end|do|ENV|<<~A|#\\{|=begin\n|\u{e9}){0,60}") {
        read(&text);
    }
}
