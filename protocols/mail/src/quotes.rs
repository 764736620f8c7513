//! Quoted strings (RFC 5322, 3.2.4) within a value that is read character by character.

/// Where in a value its reader is.
#[derive(Default)]
pub(crate) struct Quotes {
    is_inside: bool,
    is_escaped: bool,
}

impl Quotes {
    /// Whether the next character stands in a quoted string, or ends one.
    pub(crate) fn is_inside(&self) -> bool {
        self.is_inside
    }

    /// Whether a backslash stands before the next character.
    pub(crate) fn is_escaped(&self) -> bool {
        self.is_escaped
    }

    /// Goes on after a character.
    pub(crate) fn pass(&mut self, c: char) {
        self.is_inside ^= c == '"' && !self.is_escaped;
        self.pass_in_comment(c);
    }

    /// Goes on after a character of a comment, where quotation marks mean nothing.
    pub(crate) fn pass_in_comment(&mut self, c: char) {
        self.is_escaped = c == '\\' && !self.is_escaped;
    }

    /// Whether the quotation marks of a value are pairs, escaped ones aside.
    pub(crate) fn are_pairs(value: &str) -> bool {
        let mut quotes = Self::default();
        value.chars().for_each(|c| quotes.pass(c));
        !quotes.is_inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_marks_neither_begin_nor_end_a_quoted_string() {
        for (value, pairs) in
            [("", true), (r#""a""#, true), (r#""a\""#, false), (r#"\""#, true), (r#"\\""#, false)]
        {
            assert_eq!(Quotes::are_pairs(value), pairs, "{value}");
        }
    }
}
