//! `like`: a substring in any case, with `*` for any characters, none included. A backslash takes the character after it as it is.
//!
//! No store is asked to fold case by its own tables. Each letter of the pattern is asked for as itself, its lower and its upper
//! case where these are one character, so that all stores find the same: `Bjö` finds `BJÖ`, and `ss` does not find `ß`.

/// The longest pattern, in characters.
const MAX_PATTERN: usize = 200;

/// The most `*` between other characters: each may cost a matcher that tries all ways another pass over the text.
const MAX_GAPS: usize = 3;

/// What `like` looks for: texts that come one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Vec<char>>,
}

impl Pattern {
    /// Reads a pattern.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.chars().count() > MAX_PATTERN {
            return Err(format!("a pattern has at most {MAX_PATTERN} characters"));
        }
        let mut parts = vec![Vec::new()];
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let part = parts.last_mut().expect("there is always one");
            match character {
                '*' if part.is_empty() => {}
                '*' => parts.push(Vec::new()),
                '\\' => part
                    .push(characters.next().ok_or("ends with a backslash, which takes the next character as it is")?),
                '\0' => return Err("has the control character U+0000".to_owned()),
                character => part.push(character),
            }
        }
        parts.pop_if(|part| part.is_empty());
        if parts.len() > MAX_GAPS + 1 {
            return Err(format!("a pattern has at most {MAX_GAPS} wildcards between other characters"));
        }
        Ok(Self { parts })
    }

    /// The pattern's text.
    pub(crate) fn text(&self) -> String {
        let escaped = |part: &Vec<char>| {
            part.iter()
                .flat_map(|character| {
                    let escape = matches!(character, '*' | '\\').then_some('\\');
                    escape.into_iter().chain([*character])
                })
                .collect::<String>()
        };
        self.parts.iter().map(escaped).collect::<Vec<_>>().join("*")
    }

    /// Whether a text has it.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let mut from = 0;
        // The first place of each part is as good as any later one.
        self.parts.iter().all(|part| {
            let found = text[from..].windows(part.len()).position(|window| {
                window.iter().zip(part).all(|(character, wanted)| cases(*wanted).contains(character))
            });
            from += found.unwrap_or(0) + part.len();
            found.is_some()
        })
    }

    /// As a regular expression, in what RE2 and PCRE have in common, without any option.
    pub fn regex(&self) -> String {
        let part = |part: &Vec<char>| part.iter().map(|character| regex_of(*character)).collect::<String>();
        self.parts.iter().map(part).collect::<Vec<_>>().join(r"[\s\S]*")
    }

    /// As a pattern of `SQLite`'s GLOB.
    pub fn glob(&self) -> String {
        let part = |part: &Vec<char>| part.iter().map(|character| glob_of(*character)).collect::<String>();
        let parts = self.parts.iter().map(part).collect::<Vec<_>>().join("*");
        if parts.is_empty() { "*".to_owned() } else { format!("*{parts}*") }
    }
}

/// The character and its other cases, where these are one character.
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
        // Everything that is ASCII and neither a letter nor a digit may be escaped, in both dialects.
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
        Pattern::parse(pattern).unwrap().is_in(text)
    }

    #[test]
    fn it_is_a_substring_in_any_case_with_wildcards() {
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
    fn nothing_in_it_means_anything_to_a_store() {
        let hostile = Pattern::parse(r"(a+)+$.\*[^x]?{1}|\\").unwrap();
        assert_eq!(hostile.regex(), r"\([aA]\+\)\+\$\.\*\[\^[Xx]\]\?\{1\}\|\\".replace("[aA]", "[Aa]"));
        assert_eq!(hostile.glob(), r"*([Aa]+)+$.[*][[]^[Xx]][?]{1}|\*");
    }

    #[test]
    fn a_pattern_that_costs_too_much_is_refused() {
        for bad in ["a*b*c*d*e", "\\", "a\0", &"x".repeat(201)] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Pattern::parse("***a****b***").unwrap(), Pattern::parse("a*b").unwrap());
        assert_eq!(Pattern::parse(r"a\*\\*b").unwrap().text(), r"a\*\\*b");
    }
}
