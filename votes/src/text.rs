//! The texts of a vote: how they are normalized, and how long they may be.

use unicode_normalization::UnicodeNormalization;

use crate::refusal::Refusal;

/// Returns a band's name in the form that is used as a key: in NFC and trimmed.
///
/// # Errors
/// [`Reason::InvalidField`](crate::Reason::InvalidField) for the field `name` if the text is not a valid name.
pub fn band_name(name: String) -> Result<String, Refusal> {
    let name = trimmed_text("name", name, 100)?;
    if name.is_empty() { Err(Refusal::field("name", "must have at least 1 character")) } else { Ok(name) }
}

/// Returns the text in NFC and trimmed. The text may have at most `max_length` characters, and no control characters.
pub(crate) fn trimmed_text(field: &str, value: String, max_length: usize) -> Result<String, Refusal> {
    let value = bounded_text(field, value, usize::MAX)?;
    let trimmed = value.trim();
    check_length(field, trimmed, max_length)?;
    Ok(if trimmed.len() == value.len() { value } else { trimmed.to_owned() })
}

/// Returns the text in NFC. The text may have at most `max_length` characters, and no control characters.
pub(crate) fn bounded_text(field: &str, value: String, max_length: usize) -> Result<String, Refusal> {
    let value = normalized(value).map_err(|problem| Refusal::field(field, problem))?;
    check_length(field, &value, max_length)?;
    Ok(value)
}

/// Returns the text in NFC.
///
/// # Errors
/// A description of the problem if the text has a control character.
pub fn normalized(value: String) -> Result<String, String> {
    if let Some(control) = value.chars().find(|c| c.is_control()) {
        return Err(format!("has the control character U+{:04X}", u32::from(control)));
    }
    Ok(if value.is_ascii() { value } else { value.nfc().collect() })
}

fn check_length(field: &str, value: &str, max_length: usize) -> Result<(), Refusal> {
    // A text never has more characters than bytes, so the characters of short texts need not be counted.
    if value.len() <= max_length {
        return Ok(());
    }
    match value.chars().count() {
        length if length > max_length => {
            Err(Refusal::field(field, format!("has {length} characters; {max_length} are allowed")))
        }
        _ => Ok(()),
    }
}
