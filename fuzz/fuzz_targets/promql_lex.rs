//! Any bytes are split into tokens that stand in order, are not empty and begin and end between
//! characters.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewatch_parser::token_places;

fuzz_target!(|data: &[u8]| {
    for series in [false, true] {
        let mut last = 0;
        for place in token_places(data, series) {
            assert!(last <= place.start && place.start < place.end && place.end <= data.len(), "{place:?}");
            std::str::from_utf8(&data[place.start..place.end]).expect("a token is UTF-8");
            last = place.end;
        }
    }
});
