//! Who has an account, and what belongs to whom?
