//! Rules that several objects share. What the schema promises, these keep.

use crate::error::ApiError;

/// A name for people: 1 to 100 characters, none of them a control character.
pub(crate) fn name(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::invalid("/name", "A name has at least one character."));
    }
    text("/name", name, 100)
}

/// A text for people of at most `max` characters, none of them a control character.
pub(crate) fn text(field: &str, text: &str, max: usize) -> Result<(), ApiError> {
    if text.chars().count() > max {
        return Err(ApiError::invalid(field, format!("It has at most {max} characters.")));
    }
    if text.chars().any(char::is_control) {
        return Err(ApiError::invalid(field, "It holds no control characters."));
    }
    Ok(())
}

/// A number within bounds.
pub(crate) fn within(
    field: &str,
    number: u64,
    bounds: std::ops::RangeInclusive<u64>,
) -> Result<(), ApiError> {
    if bounds.contains(&number) {
        Ok(())
    } else {
        let detail = format!("It is from {} to {}.", bounds.start(), bounds.end());
        Err(ApiError::invalid(field, detail))
    }
}
