//! The operator `like` finds a substring in upper or lower case. A `*` stands for any number of characters. A backslash
//! escapes the next character.
//!
//! All stores must find the same rows, so no store folds case with its own tables. Instead, each letter of the pattern
//! matches itself, its lower case and its upper case, if these are single characters: `Bjö` finds `BJÖ`, and `ss` does
//! not find `ß`.

/// The longest pattern, in characters.
const MAX_PATTERN_CHARS: usize = 200;

/// The maximum number of `*` between other characters. For each `*`, a backtracking matcher may read the text again.
const MAX_WILDCARDS: usize = 3;

/// The pattern of a `like`: parts in this order, with any characters between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Vec<char>>,
}

impl Pattern {
    /// Parses a pattern.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.chars().count() > MAX_PATTERN_CHARS {
            return Err(format!("a pattern has at most {MAX_PATTERN_CHARS} characters"));
        }
        let mut parts = vec![Vec::new()];
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let part = parts.last_mut().expect("there is always a last part");
            match character {
                '*' if part.is_empty() => {}
                '*' => parts.push(Vec::new()),
                '\\' => part.push(characters.next().ok_or("ends with a backslash, which escapes the next character")?),
                '\0' => return Err("has the control character U+0000".to_owned()),
                character => part.push(character),
            }
        }
        parts.pop_if(|part| part.is_empty());
        if parts.len() > MAX_WILDCARDS + 1 {
            return Err(format!("a pattern has at most {MAX_WILDCARDS} wildcards between other characters"));
        }
        Ok(Self { parts })
    }

    /// Returns the text from which [`parse`](Self::parse) reads the same pattern.
    pub(crate) fn to_text(&self) -> String {
        let escape = |part: &Vec<char>| {
            part.iter()
                .flat_map(|character| {
                    let backslash = matches!(character, '*' | '\\').then_some('\\');
                    backslash.into_iter().chain([*character])
                })
                .collect::<String>()
        };
        self.parts.iter().map(escape).collect::<Vec<_>>().join("*")
    }

    /// Returns whether the text matches the pattern.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let mut from = 0;
        // If the pattern matches at all, it matches with the first occurrence of each part.
        self.parts.iter().all(|part| {
            let found = text[from..].windows(part.len()).position(|window| {
                window.iter().zip(part).all(|(character, wanted)| cases(*wanted).contains(character))
            });
            from += found.unwrap_or(0) + part.len();
            found.is_some()
        })
    }

    /// Returns the pattern as a regular expression. The expression needs no option, and means the same in RE2 and PCRE.
    pub fn regex(&self) -> String {
        let part = |part: &Vec<char>| part.iter().map(|character| regex_of(*character)).collect::<String>();
        self.parts.iter().map(part).collect::<Vec<_>>().join(r"[\s\S]*")
    }

    /// Returns the pattern for `SQLite`'s GLOB.
    pub fn glob(&self) -> String {
        let part = |part: &Vec<char>| part.iter().map(|character| glob_of(*character)).collect::<String>();
        let parts = self.parts.iter().map(part).collect::<Vec<_>>().join("*");
        if parts.is_empty() { "*".to_owned() } else { format!("*{parts}*") }
    }
}

/// Returns the character, its lower case and its upper case, if these are single characters.
fn cases(character: char) -> Vec<char> {
    fn single(mut mapped: impl Iterator<Item = char>) -> Option<char> {
        mapped.next().filter(|_| mapped.next().is_none())
    }
    let mut cases = vec![character];
    cases.extend(single(character.to_lowercase()));
    cases.extend(single(character.to_uppercase()));
    cases.sort_unstable();
    cases.dedup();
    cases
}

fn regex_of(character: char) -> String {
    match cases(character).as_slice() {
        // RE2 and PCRE allow a backslash in front of all ASCII punctuation.
        [one] if one.is_ascii_punctuation() => format!("\\{one}"),
        [one] => one.to_string(),
        cases => format!("[{}]", cases.iter().collect::<String>()),
    }
}

fn glob_of(character: char) -> String {
    match cases(character).as_slice() {
        [one @ ('*' | '?' | '[')] => format!("[{one}]"),
        [one] => one.to_string(),
        cases => format!("[{}]", cases.iter().collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn a_pattern_is_a_substring_in_any_case_with_wildcards() {
        for (pattern, text) in [
            ("", ""),
            ("*", "anything"),
            ("floyd", "Pink Floyd"),
            ("P*F*d", "pink floyd"),
            ("*pink*", "PINK"),
            ("bjö", "BJÖRK"),
            (r"\*", "a*b"),
            (r"\\", r"a\b"),
            ("a.c", "xa.cx"),
            ("aa*ab", "aaab aab"),
        ] {
            assert!(like(pattern, text), "{pattern} in {text}");
        }
        for (pattern, text) in
            [("a.c", "abc"), (r"\*", "ab"), ("ab*ba", "aba"), ("ss", "ß"), ("x", ""), ("f*p", "pink f")]
        {
            assert!(!like(pattern, text), "{pattern} in {text}");
        }
    }

    #[test]
    fn special_characters_of_stores_are_escaped() {
        let hostile = Pattern::parse(r"(a+)+$.\*[^x]?{1}|\\").unwrap();
        assert_eq!(hostile.regex(), r"\([aA]\+\)\+\$\.\*\[\^[Xx]\]\?\{1\}\|\\".replace("[aA]", "[Aa]"));
        assert_eq!(hostile.glob(), r"*([Aa]+)+$.[*][[]^[Xx]][?]{1}|\*");
    }

    #[test]
    fn a_pattern_that_is_too_expensive_is_refused() {
        for bad in ["a*b*c*d*e", "\\", "a\0", &"x".repeat(201)] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Pattern::parse("***a****b***").unwrap(), Pattern::parse("a*b").unwrap());
        assert_eq!(Pattern::parse(r"a\*\\*b").unwrap().to_text(), r"a\*\\*b");
    }
}
