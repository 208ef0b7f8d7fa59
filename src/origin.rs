//! Which of the embedded services answers, and may the caller ask?
