//! What does a setting say, as far as reading it tells?

/// What was written for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// `nil`, or nothing.
    Nothing,
    /// `true` or `false`.
    Flag(bool),
    /// A string, a symbol or a number, as its text.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// A hash, in its order.
    Map(Vec<Entry>),
    /// What only running it could tell, and why.
    Running(String),
}

/// One key of a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// From 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

impl Value {
    /// A string that says something.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.trim().is_empty() => Some(text),
            _ => None,
        }
    }

    /// What Ruby takes for true: everything but `nil` and `false`.
    pub(super) fn is_on(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Flag(false) | Self::Running(_)) && self.text() != Some("false")
    }

    /// The strings of an array; those of one string, which stands where an array is meant, between commas and spaces.
    pub(super) fn words(&self) -> Vec<String> {
        match self {
            Self::List(items) => items.iter().filter_map(|item| item.text().map(str::to_owned)).collect(),
            Self::Text(text) => text.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            Self::Nothing | Self::Flag(_) | Self::Map(_) | Self::Running(_) => Vec::new(),
        }
    }

    /// Whether only running could tell what it says, all of it or a part: half a list is another list.
    pub(super) fn is_unread(&self) -> bool {
        matches!(self, Self::Running(_) | Self::List(_)) && self.running().is_some()
    }

    /// The first thing in it that only running could tell.
    pub(super) fn running(&self) -> Option<&str> {
        match self {
            Self::Running(why) => Some(why),
            Self::List(items) => items.iter().find_map(Self::running),
            Self::Map(entries) => entries.iter().find_map(|entry| entry.value.running()),
            Self::Nothing | Self::Flag(_) | Self::Text(_) => None,
        }
    }
}
