//! Rows as votes.

use uuid::Uuid;

use super::{Contents, CsvRow};
use crate::{ContestId, Refusal, VoteRequest, json::FIELDS};

/// Makes votes of a file's rows. The columns have the names of a vote's fields, in any case; an empty cell is a field that is not there.
pub struct Ballots {
    /// Which field each column is.
    fields: Vec<&'static str>,
    digest: String,
    contest: ContestId,
}

impl Ballots {
    /// Reads the names of columns. Rows that name no contest are for this one.
    ///
    /// # Errors
    /// If a column is no field of a vote, or two are the same, or none is the name.
    pub fn new(contents: &Contents, contest: ContestId) -> Result<Self, Refusal> {
        let mut fields = Vec::with_capacity(contents.columns.len());
        for column in &contents.columns {
            let shown: String = column.chars().take(64).collect();
            let field = FIELDS.into_iter().find(|field| field.eq_ignore_ascii_case(column.trim()));
            let known = || format!("there is no such field; the columns may be {}", FIELDS.join(", "));
            let field = field.ok_or_else(|| Refusal::field(&shown, known()))?;
            if fields.contains(&field) {
                return Err(Refusal::field(field, "two columns are called so"));
            }
            fields.push(field);
        }
        if !fields.contains(&"name") {
            return Err(Refusal::field("name", "is missing; a column has to say which band each vote is for"));
        }
        Ok(Self { fields, digest: contents.digest.clone(), contest })
    }

    /// The vote of a row. Without an id of its own it has one that the file and its place in it decide, so a file that is imported twice
    /// is counted once.
    ///
    /// # Errors
    /// What is wrong.
    pub fn vote(&self, row: CsvRow) -> Result<VoteRequest, String> {
        let mut request = VoteRequest { contest: Some(self.contest.to_string()), ..VoteRequest::default() };
        for (field, cell) in self.fields.iter().zip(row.cells?) {
            if !cell.is_empty() {
                request.set_text(field, cell).map_err(|problem| format!("{field}: {problem}"))?;
            }
        }
        if request.vote_id.is_none() {
            let place = format!("{} {}", self.digest, row.number);
            request.vote_id = Some(Uuid::new_v5(&Uuid::NAMESPACE_OID, place.as_bytes()).to_string());
        }
        Ok(request)
    }
}
