//! Datasets and imports of files.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The list of all datasets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DatasetList {
    /// The datasets, sorted by name.
    pub datasets: Vec<DatasetInfo>,
}

/// A dataset and its columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DatasetInfo {
    /// The name of the dataset.
    #[cfg_attr(feature = "openapi", schema(example = "ballots-2026"))]
    pub dataset: String,
    /// The number of rows.
    pub rows: u64,
    /// Whether all rows are loaded.
    pub finished: bool,
    /// The version of the dataset, which rises when rows are added.
    pub version: u64,
    /// The columns, in the order of the file.
    pub columns: Vec<ColumnInfo>,
}

/// A column of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ColumnInfo {
    /// The name of the column, as it is in the file.
    pub name: String,
    /// The name of the column in queries: `name`, or `column.N` if `name` would not find the column.
    pub field: String,
    /// Whether the column has an index.
    pub indexed: bool,
}

/// An import and its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImportInfo {
    /// The id of the import.
    #[cfg_attr(feature = "openapi", schema(format = "uuid"))]
    pub import: String,
    /// The name of the file.
    #[cfg_attr(feature = "openapi", schema(example = "Ballots 2026.csv"))]
    pub file: String,
    /// What the rows become: `dataset` or `votes`.
    #[serde(rename = "as")]
    #[cfg_attr(feature = "openapi", schema(example = "dataset"))]
    pub kind: String,
    /// The name of the dataset. This field is absent for an import of votes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// The contest of votes that name no contest. This field is absent for an import of a dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contest: Option<String>,
    /// `loading`, `done` or `failed`. For `failed`, `problem` has the reason.
    #[cfg_attr(feature = "openapi", schema(example = "loading"))]
    pub state: String,
    /// The reason why the import failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The number of rows in the file, without the header line.
    pub rows: u64,
    /// The number of rows that are loaded.
    pub loaded: u64,
    /// The number of bad rows. Bad rows are not loaded.
    pub bad: u64,
    /// The number of chunks in the file.
    pub chunks: u32,
    /// The number of chunks that are done.
    pub chunks_done: u32,
    /// The first 100 bad rows, in the order of the file.
    pub bad_rows: Vec<BadRowInfo>,
}

/// A row that is not loaded, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BadRowInfo {
    /// The line of the file on which the row begins, counted from 1.
    pub line: u64,
    /// What is wrong with the row.
    #[cfg_attr(feature = "openapi", schema(example = "wrong number of cells: expected 3, found 2"))]
    pub problem: String,
}

/// The parameter `if_exists`: what an import does if a dataset with its name exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfExists {
    /// The file is refused.
    #[default]
    Refuse,
    /// The existing dataset is removed.
    Replace,
    /// The name of the new dataset is `NAME-2`, `NAME-3` and so on.
    Number,
}

impl IfExists {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Refuse, Self::Replace, Self::Number];

    /// Returns the value as it is written in the parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Replace => "replace",
            Self::Number => "number",
        }
    }
}

impl FromStr for IfExists {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|value| value.as_str() == text).ok_or("must be refuse, replace or number")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_lists_its_columns() {
        let json = r#"{"datasets":[{"dataset":"ballots","rows":3,"finished":true,"version":2,"columns":[{"name":"limit","field":"column.1","indexed":true}]}]}"#;
        let column = ColumnInfo { name: "limit".to_owned(), field: "column.1".to_owned(), indexed: true };
        let (dataset, columns) = ("ballots".to_owned(), vec![column]);
        let list =
            DatasetList { datasets: vec![DatasetInfo { dataset, rows: 3, finished: true, version: 2, columns }] };
        assert_eq!(serde_json::to_string(&list).unwrap(), json);
        assert_eq!(serde_json::from_str::<DatasetList>(json).unwrap(), list);
    }

    #[test]
    fn absent_fields_of_an_import_are_not_written() {
        let json = r#"{"import":"0190e1c8-5d6f-7aaa-8bbb-0123456789ab","file":"ballots.csv","as":"dataset","dataset":"ballots","state":"loading","bytes":9,"rows":2,"loaded":1,"bad":1,"chunks":1,"chunks_done":0,"bad_rows":[{"line":3,"problem":"it is short"}]}"#;
        let import = ImportInfo {
            import: "0190e1c8-5d6f-7aaa-8bbb-0123456789ab".to_owned(),
            file: "ballots.csv".to_owned(),
            kind: "dataset".to_owned(),
            dataset: Some("ballots".to_owned()),
            contest: None,
            state: "loading".to_owned(),
            problem: None,
            bytes: 9,
            rows: 2,
            loaded: 1,
            bad: 1,
            chunks: 1,
            chunks_done: 0,
            bad_rows: vec![BadRowInfo { line: 3, problem: "it is short".to_owned() }],
        };
        assert_eq!(serde_json::to_string(&import).unwrap(), json);
        assert_eq!(serde_json::from_str::<ImportInfo>(json).unwrap(), import);
    }

    #[test]
    fn if_exists_has_three_values() {
        for value in IfExists::ALL {
            assert_eq!(value.as_str().parse(), Ok(value));
        }
        assert!("other".parse::<IfExists>().is_err());
    }
}
