//! Unicode classes, `\p{Greek}`: the names that Go has for them, where Rust has many more.
//!
//! Go knows general categories, scripts and `Any`. From 1.25 on it takes these in any case, with blanks, dashes
//! and underscores anywhere, and long names of categories beside them (`\p{Letter}`). Nobody sees from a rule which Go
//! its Prometheus was built with, so here is the spelling that all of them take.

/// General categories. `Cn` and `LC` came with Go 1.25.
const CATEGORIES: [&str; 36] = [
    "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl",
    "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
];

/// Scripts of Unicode 15.
const SCRIPTS: &str = "
    Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali
    Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma
    Cham Cherokee Chorasmian Common Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari
    Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic Georgian Glagolitic Gothic
    Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Han Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana
    Imperial_Aramaic Inherited Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada Katakana
    Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki Khudawadi Lao Latin Lepcha Limbu Linear_A
    Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen Masaram_Gondi
    Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro
    Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong
    Ogham Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian
    Old_South_Arabian Old_Turkic Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa
    Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala
    Sogdian Sora_Sompeng Soyombo Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet
    Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho
    Warang_Citi Yezidi Yi Zanabazar_Square
";

/// The class of a name in Rust's spelling, if Go has the name.
pub(super) fn class(name: &str, negated: bool) -> Option<String> {
    let (property, name, negated) = match name {
        "Any" => ("", name, negated),
        // Surrogates, of which no text has any; Rust has no name for them.
        "Cs" => ("", "Any", !negated),
        _ if CATEGORIES.contains(&name) => ("gc=", name, negated),
        _ if SCRIPTS.split_ascii_whitespace().any(|script| script == name) => ("sc=", name, negated),
        _ => return None,
    };
    let sign = if negated { 'P' } else { 'p' };
    Some(format!("\\{sign}{{{property}{name}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_knows_each_class_that_go_knows() {
        for name in CATEGORIES.into_iter().chain(SCRIPTS.split_ascii_whitespace()).chain(["Any"]) {
            for negated in [false, true] {
                let class = class(name, negated).expect("it is listed");
                assert!(regex_syntax::parse(&class).is_ok(), "{class}");
            }
        }
    }
}
