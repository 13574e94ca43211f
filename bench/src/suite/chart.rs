//! Bars, as SVG.

use crate::goals::Spread;

const LEFT: f64 = 150.0;
const BAR: f64 = 420.0;
const ROW: f64 = 26.0;

/// A bar for each contender, with a line from its least to its most.
pub(crate) fn bars(title: &str, unit: &str, rows: &[(String, Spread)]) -> String {
    let most = rows.iter().map(|(_, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let place = |value: f64| LEFT + BAR * value / most;
    let height = 44.0 + ROW * rows.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" viewBox=\"0 0 720 {height}\" role=\"img\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<title>{title}</title>\n<rect width=\"720\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"22\" font-weight=\"bold\">{title}, {unit}</text>\n"
    );
    for (number, (who, spread)) in rows.iter().enumerate() {
        let y = 36.0 + ROW * number as f64;
        let fill = match who.as_str() {
            crate::OURS => "#1b7f5c",
            "bare" | "our HTTP client" => "#9aa5b1",
            _ => "#4f7cac",
        };
        svg.push_str(&format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{who}</text>\
             <rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"18\" fill=\"{fill}\"/>\
             <path d=\"M{:.1} {middle:.0}H{:.1}\" stroke=\"#222\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{}</text>\n",
            LEFT - 8.0,
            y + 14.0,
            BAR * spread.median / most,
            place(spread.least),
            place(spread.most),
            place(spread.most) + 8.0,
            y + 14.0,
            number_of(spread.median),
            middle = y + 9.0,
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

/// A figure with three digits that count, and its thousands apart.
pub(crate) fn number_of(value: f64) -> String {
    let decimals = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && digit != '-' && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_figures_as_people_read_them() {
        for (value, text) in
            [(1_234_567.8, "1,234,568"), (999.4, "999"), (12.34, "12.3"), (0.8512, "0.85"), (-1234.0, "-1,234")]
        {
            assert_eq!(number_of(value), text);
        }
    }
}
