//! The grammar of queries about votes and datasets, and what the queries mean. This module is independent of any store.
//!
//! | idea | file |
//! |---|---|
//! | a query: conditions on columns, an order, a page | [`query`] |
//! | rows, and the order of rows | [`row`] |
//! | the columns of a table, their names, and the order of its rows | [`schema`] |
//! | the parser of parameters | [`parse`] |
//! | values by the type of their column, and which texts look like numbers | [`value`] |
//! | the operator `like` | [`like`] |
//! | the normal form of a query, and the cursor of its next page | [`normal`] |
//! | a query in terms of stored fields, and the index for it | [`plan`] |
//! | the definition of the correct response | [`evaluate`] |
//! | the limits of queries and responses | [`limits`] |
//!
//! A store translates a [`Plan`], never a parameter. In a plan, columns are indexes into a list, and values are bound.

mod evaluate;
mod like;
mod limits;
mod normal;
mod parse;
mod plan;
mod query;
mod row;
mod schema;
mod value;

pub use evaluate::{Evaluated, evaluate};
pub use like::Pattern;
pub use limits::{
    DEFAULT_PAGE_ROWS, MAX_CONDITIONS, MAX_EXACT_TOTAL, MAX_IN_VALUES, MAX_PAGE_END, MAX_PAGE_ROWS, MAX_VALUE_CHARS,
    PARAMETERS,
};
pub use normal::decode_normal_form;
pub use plan::{Filter, Index, Plan, StoredField};
pub use query::Query;
pub use row::{Direction, Key, Row, Total};
pub use schema::{Column, Schema, VOTE_COLUMNS, Votes};
pub use value::{Kind, Value, number_of};
