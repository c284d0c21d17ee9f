//! Contests and their tallies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The list of all contests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContestList {
    /// The contests, sorted by slug.
    pub contests: Vec<ContestName>,
}

/// A contest of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContestName {
    /// The slug of the contest, `[a-z0-9][a-z0-9-]{0,62}`.
    #[cfg_attr(feature = "openapi", schema(example = "bands"))]
    pub contest: String,
}

/// The tally of a contest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tally {
    /// The slug of the contest.
    #[cfg_attr(feature = "openapi", schema(example = "bands"))]
    pub contest: String,
    /// The number of votes counted for the contest.
    pub total: u64,
    /// The version of the tallies, which rises with each change of the tallies of any contest.
    pub version: u64,
    /// The leading bands, at most 100. The band with the most votes is the first.
    pub bands: Vec<BandVotes>,
    /// All bands that are not in `bands`.
    pub others: Others,
    /// The number of votes by producer: `rest`, `grpc`, `import`.
    pub producers: BTreeMap<String, u64>,
    /// The number of records of the vote log that were processed, for all contests: they were counted, are duplicates,
    /// or are invalid.
    pub processed: u64,
    /// The number of records on the vote log, for all contests. `accepted` minus `processed` records are not counted
    /// yet.
    pub accepted: u64,
    /// Whether the tallies lost votes that were counted before, and these votes are being counted again. Until then, all
    /// counts are too low. `processed` of `accepted` records are counted.
    #[serde(default)]
    pub recounting: bool,
}

/// The votes of one band.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BandVotes {
    /// The band.
    #[cfg_attr(feature = "openapi", schema(example = "Pink Floyd"))]
    pub name: String,
    /// The number of votes for the band.
    pub votes: u64,
    /// The band's share of the total of the contest, 0 to 1.
    pub share: f64,
}

/// The sum of the bands that are not listed one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Others {
    /// The number of bands.
    pub bands: u64,
    /// The sum of their votes.
    pub votes: u64,
}

/// The leading albums of a contest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Albums {
    /// The slug of the contest.
    #[cfg_attr(feature = "openapi", schema(example = "bands"))]
    pub contest: String,
    /// The albums. The album with the most votes is the first.
    pub albums: Vec<AlbumVotes>,
}

/// The votes of one album.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlbumVotes {
    /// The band.
    #[cfg_attr(feature = "openapi", schema(example = "Pink Floyd"))]
    pub name: String,
    /// The album.
    #[cfg_attr(feature = "openapi", schema(example = "The Wall"))]
    pub album: String,
    /// The number of votes for the album.
    pub votes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_written_as_it_is_read() {
        let json = r#"{"contest":"bands","total":3,"version":9,"bands":[{"name":"Pink Floyd","votes":2,"share":0.5}],"others":{"bands":1,"votes":1},"producers":{"grpc":1,"rest":2},"processed":4,"accepted":5,"recounting":false}"#;
        let tally = Tally {
            contest: "bands".to_owned(),
            total: 3,
            version: 9,
            bands: vec![BandVotes { name: "Pink Floyd".to_owned(), votes: 2, share: 0.5 }],
            others: Others { bands: 1, votes: 1 },
            producers: [("rest".to_owned(), 2), ("grpc".to_owned(), 1)].into(),
            processed: 4,
            accepted: 5,
            recounting: false,
        };
        assert_eq!(serde_json::to_string(&tally).unwrap(), json);
        assert_eq!(serde_json::from_str::<Tally>(json).unwrap(), tally);
    }

    #[test]
    fn contests_and_albums_are_written_as_they_are_read() {
        let contests = ContestList { contests: vec![ContestName { contest: "bands".to_owned() }] };
        assert_eq!(serde_json::to_string(&contests).unwrap(), r#"{"contests":[{"contest":"bands"}]}"#);
        let album = AlbumVotes { name: "Pink Floyd".to_owned(), album: "The Wall".to_owned(), votes: 2 };
        let albums = Albums { contest: "bands".to_owned(), albums: vec![album] };
        let json = r#"{"contest":"bands","albums":[{"name":"Pink Floyd","album":"The Wall","votes":2}]}"#;
        assert_eq!(serde_json::to_string(&albums).unwrap(), json);
        assert_eq!(serde_json::from_str::<Albums>(json).unwrap(), albums);
    }
}
