//! Account names, project paths, roles and visibility, parsed once.

use std::fmt;
use std::str::FromStr;

use crate::oci::RepositoryName;

/// The longest account name.
pub const ACCOUNT_NAME_LENGTH: usize = 128;

/// Logins that name a kind of credential instead of a person, so no account may have them.
const RESERVED: [&str; 1] = ["gitlab-ci-token"];

/// The name of an account: letters, digits, `_`, `.` and `-`, kept in lower case.
///
/// `Alice` and `alice` are one account, so nobody can pass for somebody else by capital letters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(Box<str>);

impl AccountName {
    /// The text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = AccountNameError;

    fn from_str(text: &str) -> Result<Self, AccountNameError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let well_formed = text.len() <= ACCOUNT_NAME_LENGTH
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
        if !well_formed {
            return Err(AccountNameError::Format);
        }
        let name = text.to_ascii_lowercase();
        if RESERVED.contains(&name.as_str()) {
            return Err(AccountNameError::Reserved);
        }
        Ok(Self(name.into()))
    }
}

/// Why a text is not the name of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountNameError {
    /// The grammar.
    #[error("a user name has 1 to 128 letters, digits, _ . and -, and does not start with . or -")]
    Format,
    /// It names a kind of credential.
    #[error("this user name is reserved")]
    Reserved,
}

/// The path of a project, or of a group: the grammar is that of repository names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectPath(RepositoryName);

impl ProjectPath {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// How many components it has.
    pub fn depth(&self) -> usize {
        self.0.components().count()
    }

    /// Whether `path` is this path or lies below it, component by component.
    pub fn covers(&self, path: &str) -> bool {
        path.strip_prefix(self.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The first `depth` components of a repository's name; all of them if there are no more.
    pub fn leading(name: &RepositoryName, depth: usize) -> Option<Self> {
        if depth == 0 {
            return None;
        }
        let end = name.as_str().match_indices('/').nth(depth - 1).map_or(name.as_str().len(), |(at, _)| at);
        name.as_str()[..end].parse().ok()
    }
}

/// Every prefix of a path that ends between two components, shortest first, the path itself last.
pub(super) fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain([path])
}

impl FromStr for ProjectPath {
    type Err = ProjectPathError;

    fn from_str(text: &str) -> Result<Self, ProjectPathError> {
        text.parse().map(Self).map_err(|_| ProjectPathError)
    }
}

/// The text is not a project's or group's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path has lower-case letters, digits and single inner . _ __ or - separators, in parts joined by /, like group/app"
)]
pub struct ProjectPathError;

macro_rules! shows_its_text {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

shows_its_text!(AccountName, ProjectPath, Role, Visibility);

/// What a member may do, in GitLab's words and in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// 10
    Guest,
    /// 15
    Planner,
    /// 20: may pull from a private project.
    Reporter,
    /// 30: may push.
    Developer,
    /// 40: may delete.
    Maintainer,
    /// 50
    Owner,
}

impl Role {
    /// All of them, lowest first.
    pub const ALL: [Self; 6] =
        [Self::Guest, Self::Planner, Self::Reporter, Self::Developer, Self::Maintainer, Self::Owner];

    /// GitLab's access level, which is what the database holds.
    pub fn level(self) -> i64 {
        match self {
            Self::Guest => 10,
            Self::Planner => 15,
            Self::Reporter => 20,
            Self::Developer => 30,
            Self::Maintainer => 40,
            Self::Owner => 50,
        }
    }

    /// The role of a stored level.
    pub(super) fn from_level(level: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.level() == level)
    }

    /// The word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Planner => "planner",
            Self::Reporter => "reporter",
            Self::Developer => "developer",
            Self::Maintainer => "maintainer",
            Self::Owner => "owner",
        }
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(RoleError)
    }
}

/// The text is not a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of guest, planner, reporter, developer, maintainer, owner")]
pub struct RoleError;

/// Who may see a project without being its member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Visibility {
    /// Nobody.
    Private,
    /// Everybody with an account.
    Internal,
    /// Everybody.
    Public,
}

impl Visibility {
    /// All of them, narrowest first.
    pub const ALL: [Self; 3] = [Self::Private, Self::Internal, Self::Public];

    /// The word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Internal => "internal",
            Self::Public => "public",
        }
    }
}

impl FromStr for Visibility {
    type Err = VisibilityError;

    fn from_str(text: &str) -> Result<Self, VisibilityError> {
        Self::ALL.into_iter().find(|visibility| visibility.as_str() == text).ok_or(VisibilityError)
    }
}

/// The text is not a visibility.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a visibility is one of private, internal, public")]
pub struct VisibilityError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> ProjectPath {
        text.parse().unwrap()
    }

    #[test]
    fn an_account_name_is_one_word_whatever_its_capitals() {
        assert_eq!("Alice.B-c_1".parse::<AccountName>().unwrap().as_str(), "alice.b-c_1");
        for bad in ["", ".a", "-a", "a b", "a:b", "a/b", "é", "a\n", &"a".repeat(129)] {
            assert_eq!(bad.parse::<AccountName>(), Err(AccountNameError::Format), "{bad:?}");
        }
        assert_eq!("GitLab-CI-Token".parse::<AccountName>(), Err(AccountNameError::Reserved));
    }

    #[test]
    fn covering_goes_by_components_and_not_by_letters() {
        assert!(path("a/b").covers("a/b") && path("a/b").covers("a/b/c"));
        assert!(!path("a/b").covers("a/bc") && !path("a/b").covers("a") && !path("a/b").covers("x/a/b"));
    }

    #[test]
    fn leading_components() {
        let name: RepositoryName = "a/b/c".parse().unwrap();
        let leading = |depth| ProjectPath::leading(&name, depth).map(|path| path.to_string());
        assert_eq!(leading(0), None);
        assert_eq!(leading(1).as_deref(), Some("a"));
        assert_eq!(leading(2).as_deref(), Some("a/b"));
        assert_eq!(leading(9).as_deref(), Some("a/b/c"));
    }

    #[test]
    fn roles_and_visibilities_come_back_from_their_words_and_levels() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(Role::from_level(role.level()), Some(role));
        }
        for visibility in Visibility::ALL {
            assert_eq!(visibility.as_str().parse(), Ok(visibility));
        }
        assert!(Role::ALL.is_sorted() && Visibility::ALL.is_sorted());
        assert!("Owner".parse::<Role>().is_err() && "".parse::<Visibility>().is_err());
    }

    proptest! {
        #[test]
        fn a_parsed_account_name_parses_to_itself(text in "\\PC{0,20}") {
            if let Ok(name) = text.parse::<AccountName>() {
                prop_assert_eq!(name.as_str().parse::<AccountName>().unwrap(), name.clone());
                prop_assert!(!name.as_str().contains([':', '/', ' ']));
            }
        }

        #[test]
        fn the_prefixes_of_a_path_are_paths_and_cover_it(text in "[a-z]{1,3}(/[a-z]{1,3}){0,5}") {
            let all: Vec<&str> = prefixes(&text).collect();
            prop_assert_eq!(all.len(), text.split('/').count());
            prop_assert_eq!(all.last().copied(), Some(text.as_str()));
            prop_assert!(all.iter().all(|prefix| path(prefix).covers(&text)));
            prop_assert!(all.is_sorted());
        }
    }
}
