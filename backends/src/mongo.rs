//! The book on MongoDB.
