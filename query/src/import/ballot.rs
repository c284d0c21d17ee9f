//! This module turns the rows of a file into votes.

use uuid::Uuid;
use votes::{ContestId, Refusal, VOTE_FIELDS, VoteRequest};

use super::{chunk::Contents, rows::CsvRow};

/// Turns the rows of a file into votes. The columns must have the names of the fields of a vote, in upper or lower
/// case. An empty cell is an absent field.
pub struct VoteMapper {
    /// The field of each column.
    fields: Vec<&'static str>,
    digest: String,
    contest: ContestId,
}

impl VoteMapper {
    /// Creates a mapper for the columns of a file. `contest` is the contest of the rows without a contest.
    ///
    /// # Errors
    /// If a column is not a field of a vote, if two columns are the same field, or if the column `name` is missing.
    pub fn new(contents: &Contents, contest: ContestId) -> Result<Self, Refusal> {
        let mut fields = Vec::with_capacity(contents.columns.len());
        for column in &contents.columns {
            let shortened: String = column.chars().take(64).collect();
            let field = VOTE_FIELDS.into_iter().find(|field| field.eq_ignore_ascii_case(column.trim()));
            let problem = || format!("is not a field of a vote; the columns may be {}", VOTE_FIELDS.join(", "));
            let field = field.ok_or_else(|| Refusal::field(&shortened, problem()))?;
            if fields.contains(&field) {
                return Err(Refusal::field(field, "is the name of two columns"));
            }
            fields.push(field);
        }
        if !fields.contains(&"name") {
            return Err(Refusal::field("name", "is missing; the file needs this column with the band of each vote"));
        }
        Ok(Self { fields, digest: contents.digest.clone(), contest })
    }

    /// Returns the vote of a row. If the row has no id, the id is derived from the content of the file and the number
    /// of the row. So a file that is imported twice is counted once.
    ///
    /// # Errors
    /// A text that describes what is wrong with the row.
    pub fn vote(&self, row: CsvRow) -> Result<VoteRequest, String> {
        let mut request = VoteRequest { contest: Some(self.contest.to_string()), ..VoteRequest::default() };
        for (field, cell) in self.fields.iter().zip(row.cells?) {
            if !cell.is_empty() {
                request.set_text(field, cell).map_err(|problem| format!("{field}: {problem}"))?;
            }
        }
        if request.vote_id.is_none() {
            let source = format!("{} {}", self.digest, row.number);
            request.vote_id = Some(Uuid::new_v5(&Uuid::NAMESPACE_OID, source.as_bytes()).to_string());
        }
        Ok(request)
    }
}
