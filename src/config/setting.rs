//! What does the configuration say about one key?

use super::problem::Place;

/// A key's value, if there is one.
#[derive(Debug, Clone)]
pub(super) enum Setting<T> {
    /// Not written: the default counts.
    Unset,
    /// Written and reported: no further check may rely on it.
    Wrong,
    /// Written.
    Is(T, Place),
}

impl<T> Setting<T> {
    /// The value and its place, if it was written and is good.
    pub(super) fn written(&self) -> Option<(&T, &Place)> {
        match self {
            Self::Is(value, place) => Some((value, place)),
            Self::Unset | Self::Wrong => None,
        }
    }

    pub(super) fn is_unset(&self) -> bool {
        matches!(self, Self::Unset)
    }

    pub(super) fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong)
    }

    /// The value alone.
    pub(super) fn into_value(self) -> Option<T> {
        match self {
            Self::Is(value, _) => Some(value),
            Self::Unset | Self::Wrong => None,
        }
    }

    /// The value, or the default. What stands in for a wrong value is never used: the problems come instead.
    pub(super) fn or(self, default: T) -> T {
        self.into_value().unwrap_or(default)
    }

    pub(super) fn or_else(self, default: impl FnOnce() -> T) -> T {
        self.into_value().unwrap_or_else(default)
    }

    /// Another value at the same place.
    pub(super) fn map<U>(self, change: impl FnOnce(T, &Place) -> U) -> Setting<U> {
        match self {
            Self::Unset => Setting::Unset,
            Self::Wrong => Setting::Wrong,
            Self::Is(value, place) => Setting::Is(change(value, &place), place),
        }
    }
}

impl<T> Setting<Vec<T>> {
    /// The items that were written.
    pub(super) fn items(&self) -> &[T] {
        self.written().map_or(&[], |(items, _)| items)
    }
}

/// A section that may be switched off as a whole.
#[derive(Debug)]
pub(super) enum Switch<T> {
    /// `off`.
    Off,
    /// Its keys, or their absence.
    On(T),
}

/// What `KEY: true` and `KEY: false` say about a section, beside what its keys say.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// Whether it is to be.
    pub(super) switch: Setting<bool>,
    /// Whether one of its keys is written.
    pub(super) any: bool,
}
