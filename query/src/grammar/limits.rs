//! The limits of queries and responses, and the parameters that are not columns.

/// The parameters that are not columns. A query names a column with such a name by its number, as `column.N`.
pub const PARAMETERS: [&str; 8] = ["sort", "limit", "cursor", "fields", "allow_scan", "via", "format", "max_age"];

/// The maximum number of rows on one page.
pub const MAX_PAGE_ROWS: usize = 50_000;

/// The number of rows on a page if the query has no `limit`.
pub const DEFAULT_PAGE_ROWS: usize = 100;

/// The maximum sum of the skipped rows and the rows on the page. A store must read the skipped rows. A page by cursor
/// skips no rows.
pub const MAX_PAGE_END: usize = 100_000;

/// The maximum total that is exact. A higher total is reported as "at least" this number.
pub const MAX_EXACT_TOTAL: usize = 10_000;

/// The maximum number of conditions in a query.
pub const MAX_CONDITIONS: usize = 32;

/// The maximum number of values of an `in`.
pub const MAX_IN_VALUES: usize = 1_000;

/// The longest value of a condition, in characters.
pub const MAX_VALUE_CHARS: usize = 2_000;
