//! An imported file is split into chunks. Every record is in exactly one chunk, for any pieces of the upload and any
//! size of the chunks.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use query::import::{Chunk, Contents, CsvRow, ImportId, Loaded, Splitter, VoteMapper, read_rows};
use votes::ContestId;

fn split(file: &[u8], chunk_bytes: u64, piece: usize) -> Result<(Contents, Vec<Chunk>), String> {
    let mut splitter = Splitter::with_chunks_of(chunk_bytes);
    for bytes in file.chunks(piece) {
        splitter.read(bytes).map_err(|bad| bad.to_string())?;
    }
    splitter.finish(ImportId::new()).map_err(|bad| bad.to_string())
}

fn all_rows(file: &[u8], contents: &Contents, chunks: &[Chunk]) -> Vec<CsvRow> {
    let rows_of = |chunk: &Chunk| {
        let (begin, end) = (usize::try_from(chunk.bytes.start).unwrap(), usize::try_from(chunk.bytes.end).unwrap());
        read_rows(chunk, &file[begin..end], contents.columns.len()).collect::<Vec<_>>()
    };
    chunks.iter().flat_map(rows_of).collect()
}

fn cells(row: &CsvRow) -> Vec<&str> {
    row.cells.as_ref().unwrap().iter().map(String::as_str).collect()
}

fn read(file: &str) -> (Contents, Vec<CsvRow>) {
    let (contents, chunks) = split(file.as_bytes(), 1, 3).unwrap();
    let rows = all_rows(file.as_bytes(), &contents, &chunks);
    assert_eq!(rows.len() as u64, contents.rows);
    (contents, rows)
}

#[test]
fn a_quoted_cell_may_have_newlines_commas_and_quotes() {
    let (contents, rows) = read("name,album\n\"Emerson, Lake & Palmer\",\"Tarkus\nLive\"\nQueen,\"A \"\"Night\"\"\"\n");
    assert_eq!(contents.columns, ["name", "album"]);
    assert_eq!(cells(&rows[0]), ["Emerson, Lake & Palmer", "Tarkus\nLive"]);
    assert_eq!(cells(&rows[1]), ["Queen", "A \"Night\""]);
    assert_eq!((rows[0].line, rows[1].line), (2, 4));
    assert_eq!((rows[0].number, rows[1].number), (0, 1));
}

#[test]
fn a_byte_order_mark_carriage_returns_and_empty_lines_are_not_in_any_cell() {
    let (contents, rows) = read("\u{FEFF}name,year\r\n\r\nQueen,1975\r\n\r\n\r\nMot\u{f6}rhead,1980");
    assert_eq!(contents.columns, ["name", "year"]);
    assert_eq!(rows.iter().map(cells).collect::<Vec<_>>(), [["Queen", "1975"], ["Mot\u{f6}rhead", "1980"]]);
    assert_eq!((rows[0].line, rows[1].line), (3, 6));
}

#[test]
fn a_bad_row_is_reported_with_its_line_and_the_other_rows_are_read() {
    let (_, rows) = read("name,year\nQueen\n\"a\nb\",1\nx,2,3\nnull,\0\nlast,4\n");
    let problems = rows.iter().filter_map(|row| Some((row.line, row.cells.as_ref().err()?.as_str())));
    let problems: Vec<(u64, &str)> = problems.collect();
    assert_eq!(
        problems,
        [
            (2, "wrong number of cells: expected 2, found 1"),
            (5, "wrong number of cells: expected 2, found 3"),
            (6, "a cell has the character U+0000")
        ]
    );
    assert_eq!(cells(&rows[4]), ["last", "4"]);
}

#[test]
fn latin_1_is_refused_with_the_line_and_how_to_convert_the_file() {
    let problem = split(b"name\nQueen\nMot\xF6rhead\n", 1, 1).unwrap_err();
    for part in ["line 3", "0xF6", "'\u{f6}' in Latin-1", "iconv --from-code=latin1 --to-code=utf-8"] {
        assert!(problem.contains(part), "{problem}");
    }
    assert!(split(b"Bj\xF6rk\n", 1, 7).unwrap_err().contains("line 1"));
}

#[test]
fn a_file_that_can_not_be_imported_is_refused() {
    let header = "a,".repeat(500);
    for (file, part) in [
        (Vec::new(), "is empty"),
        (b"\n\r\n".to_vec(), "is empty"),
        (b"\xEF\xBB\xBF".to_vec(), "is empty"),
        (b"a\0,b\n".to_vec(), "U+0000"),
        (header.into_bytes(), "501 columns"),
        (
            [b"a,b\n1,2\n\"".to_vec(), vec![b'x'; 2 << 20]].concat(),
            "begins on line 3 has more than 1048576 bytes; is a quote missing",
        ),
        ([b"a,b\n".to_vec(), vec![b','; 2 << 20]].concat(), "line 2 has more than"),
    ] {
        for piece in [1 << 16, file.len().max(1)] {
            let problem = split(&file, 1, piece).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}

#[test]
fn a_file_with_only_a_header_line_has_no_rows() {
    let (contents, chunks) = split(b"name,album", 1, 4).unwrap();
    assert_eq!((contents.columns.len(), contents.rows, chunks.len()), (2, 0, 0));
}

#[test]
fn the_digest_of_a_file_is_its_sha_256() {
    let digest = |file: &[u8]| split(file, 1, 2).unwrap().0.digest;
    assert_eq!(digest(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_ne!(digest(b"abc\n"), digest(b"abc"));
}

proptest! {
    #[test]
    fn every_record_is_in_one_chunk_for_any_size_of_chunks_and_pieces(
        table in prop::collection::vec(prop::collection::vec("[a-z,\"\r\n\u{e9}\u{1F3B8} ]{0,12}", 3), 0..40),
        crlf in any::<bool>(),
        ends in any::<bool>(),
        chunk_bytes in 1_u64..200,
        piece in 1_usize..64,
    ) {
        let newline = if crlf { "\r\n" } else { "\n" };
        let line = |cells: &[String]| {
            let quoted = cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\"")));
            quoted.collect::<Vec<_>>().join(",")
        };
        let mut lines = vec!["\"a\",b,\"c\"".to_owned()];
        lines.extend(table.iter().map(|cells| line(cells)));
        let file = lines.join(newline) + if ends { newline } else { "" };
        let (contents, chunks) = split(file.as_bytes(), chunk_bytes, piece).unwrap();
        let rows = all_rows(file.as_bytes(), &contents, &chunks);
        prop_assert_eq!(rows.iter().map(|row| row.cells.clone().unwrap()).collect::<Vec<_>>(), table.clone());
        prop_assert!(rows.iter().map(|row| row.number).eq(0..table.len() as u64));
        prop_assert_eq!(contents.bytes, file.len() as u64);
        // The line of each row is the line of its first character.
        let mut at = file.find(newline).map_or(file.len(), |end| end + newline.len());
        for (row, cells) in rows.iter().zip(&table) {
            prop_assert_eq!(row.line, 1 + file[..at].matches('\n').count() as u64);
            at += line(cells).len() + newline.len();
        }
        // Each chunk begins at or after the end of the chunk before. All chunks except the last have at least the
        // requested size.
        for pair in chunks.windows(2) {
            prop_assert!(pair[0].bytes.end <= pair[1].bytes.start);
            prop_assert!(pair[0].bytes.end - pair[0].bytes.start >= chunk_bytes);
        }
    }

    #[test]
    fn the_pieces_of_an_upload_do_not_change_the_split(file in prop::collection::vec(prop::sample::select(b"ab,\"\"\r\n\n\xC3\xA9".to_vec()), 0..300), piece in 1_usize..50) {
        let whole = split(&file, 20, file.len().max(1));
        let pieces = split(&file, 20, piece);
        match (whole, pieces) {
            (Ok((contents, chunks)), Ok((others, _))) => {
                prop_assert_eq!(&contents, &others);
                prop_assert_eq!(all_rows(&file, &contents, &chunks).len() as u64, contents.rows);
            }
            (Err(problem), Err(other)) => prop_assert_eq!(problem, other),
            (whole, pieces) => prop_assert!(false, "{:?} and {:?}", whole, pieces),
        }
    }
}

fn contents(columns: &[&str]) -> Contents {
    let columns = columns.iter().map(|name| (*name).to_owned()).collect();
    Contents { digest: "00".to_owned(), bytes: 0, columns, rows: 0, chunks: 0 }
}

fn row(number: u64, cells: &[&str]) -> CsvRow {
    CsvRow { number, line: number + 2, cells: Ok(cells.iter().map(|cell| (*cell).to_owned()).collect()) }
}

#[test]
fn a_row_becomes_a_vote_by_the_names_of_its_columns() {
    let mapper = VoteMapper::new(&contents(&["Name", " YEAR ", "rank", "Contest"]), ContestId::default()).unwrap();
    let vote = mapper.vote(row(7, &["Pink Floyd", "1979", "5.5", "albums"])).unwrap();
    assert_eq!((vote.name.as_deref(), vote.year, vote.rank), (Some("Pink Floyd"), Some(1979), Some(5.5)));
    assert_eq!(vote.contest.as_deref(), Some("albums"));
    let other = mapper.vote(row(8, &["Pink Floyd", "", "", ""])).unwrap();
    assert_eq!((other.year, other.contest.as_deref()), (None, Some("bands")));
    assert_ne!(vote.vote_id, other.vote_id);
    assert_eq!(vote.vote_id, mapper.vote(row(7, &["Queen", "", "", ""])).unwrap().vote_id);
    assert_eq!(mapper.vote(row(9, &["Queen", "then", "", ""])).unwrap_err(), "year: must be a number or numeric text");
}

#[test]
fn a_column_that_is_not_a_field_of_a_vote_is_named() {
    for (columns, field) in [(&["name", "price"] as &[_], "price"), (&["name", "NAME"], "name"), (&["album"], "name")] {
        let refusal = VoteMapper::new(&contents(columns), ContestId::default()).err().unwrap();
        assert_eq!(refusal.field.as_deref(), Some(field));
    }
}

#[test]
fn at_most_a_hundred_bad_rows_are_listed() {
    let mut loaded = Loaded::default();
    for line in 0..60 {
        loaded.add_bad_row(line, "bad");
    }
    loaded.add(loaded.clone());
    assert_eq!((loaded.bad, loaded.bad_rows.len()), (120, Loaded::MAX_BAD_ROWS));
}
