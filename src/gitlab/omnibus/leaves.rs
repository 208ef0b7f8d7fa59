//! Which of several assignments counts?
//!
//! The last one, but for what only running could tell, and for `||=` where something is said already. Hashes are taken
//! apart into their keys. Each setting is looked at once for each part of its path, however many there are.

use std::collections::HashMap;

use super::super::ruby::Statement;
use super::super::value::Value;

/// One setting: no hash any more.
pub(super) struct Leaf {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    pub(super) value: Value,
    /// The line that says something else later.
    pub(super) beaten: Option<usize>,
    /// Whether its text speaks of the registry, or reads other text that might.
    pub(super) suspect: bool,
    /// Whether its text speaks of something that keeps somebody out.
    pub(super) guards: bool,
}

/// The settings, and where each stands: below which paths.
#[derive(Default)]
struct Leaves {
    all: Vec<Leaf>,
    /// Those that count, below each path that leads to them.
    below: HashMap<Vec<String>, Vec<usize>>,
}

impl Leaves {
    fn take(&mut self, mut statement: Statement) {
        let unread = statement.value.is_unread();
        let before = self.below.get(&statement.path).and_then(|found| found.last()).map(|last| &self.all[*last]);
        let beaten = before.filter(|_| statement.weak).and_then(|before| match &before.value {
            value if value.is_unread() => {
                let why = format!("it counts only where line {} says nothing", before.line);
                statement.value = Value::Running(why);
                None
            }
            Value::Nothing | Value::Flag(false) => None,
            _ => Some(before.line),
        });
        if !unread && beaten.is_none() && !statement.value.is_unread() {
            for index in self.below.remove(&statement.path).unwrap_or_default() {
                self.all[index].beaten.get_or_insert(statement.line);
            }
        }
        let first = self.all.len();
        let (suspect, guards) = (statement.suspect, statement.guards);
        flatten(statement.path, statement.line, statement.value, &mut self.all);
        for (index, leaf) in self.all.iter_mut().enumerate().skip(first) {
            leaf.beaten = beaten;
            (leaf.suspect, leaf.guards) = (suspect, guards);
            for length in (1..=leaf.path.len()).filter(|_| beaten.is_none()) {
                self.below.entry(leaf.path[..length].to_vec()).or_default().push(index);
            }
        }
    }
}

/// The settings of a file, and which of them count.
pub(super) fn leaves(statements: Vec<Statement>) -> Vec<Leaf> {
    let mut taken = Leaves::default();
    for statement in statements {
        taken.take(statement);
    }
    let mut leaves = taken.all;
    // What is written under both names: the new one counts, wherever it stands.
    let new: HashMap<Vec<String>, usize> = leaves
        .iter()
        .filter(|leaf| leaf.beaten.is_none() && !leaf.value.is_unread())
        .filter(|leaf| leaf.path.starts_with(&["registry".to_owned(), "nginx".to_owned()]))
        .map(|leaf| (leaf.path[2..].to_vec(), leaf.line))
        .collect();
    for leaf in leaves.iter_mut().filter(|leaf| leaf.path[0] == "registry_nginx" && leaf.beaten.is_none()) {
        leaf.beaten = new.get(&leaf.path[1..]).copied();
    }
    leaves
}

fn flatten(path: Vec<String>, line: usize, value: Value, leaves: &mut Vec<Leaf>) {
    match value {
        Value::Map(entries) if !entries.is_empty() => {
            for entry in entries {
                let path = path.iter().cloned().chain([entry.key]).collect();
                flatten(path, entry.line, entry.value, leaves);
            }
        }
        Value::List(items) if items.iter().any(|item| matches!(item, Value::Map(_))) => {
            for (number, item) in items.into_iter().enumerate() {
                flatten(path.iter().cloned().chain([number.to_string()]).collect(), line, item, leaves);
            }
        }
        value => leaves.push(Leaf { path, line, value, beaten: None, suspect: false, guards: false }),
    }
}
