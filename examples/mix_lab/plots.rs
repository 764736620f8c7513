//! The figures, as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::Failed;
use crate::row::Row;

const SIZE: (u32, u32) = (800, 480);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(90, 90, 90),
];

/// A line for each name.
pub struct Lines {
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    pub of: Vec<(String, Vec<(f64, f64)>)>,
}

impl Lines {
    pub fn draw(&self, path: &Path) -> Result<(), Failed> {
        let points = || self.of.iter().flat_map(|(_, points)| points);
        let most_x = points().map(|(x, _)| *x).fold(1e-9, f64::max);
        let most_y = points().map(|(_, y)| *y).fold(1e-9, f64::max) * 1.05;
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..most_x, 0.0..most_y)?;
        chart.configure_mesh().x_desc(self.x).y_desc(self.y).light_line_style(WHITE).draw()?;
        for ((name, points), colour) in self.of.iter().zip(COLOURS.iter().cycle()) {
            let style = ShapeStyle::from(colour).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        let place = SeriesLabelPosition::LowerRight;
        let labels = &mut chart.configure_series_labels();
        labels.position(place).background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        area.present()?;
        Ok(())
    }
}

/// A bar for each network: the mails among which one hides, and the mark at which one of them would be
/// guessed as often as the best guess is right.
pub fn draw_rows(rows: &[Row], path: &Path) -> Result<(), Failed> {
    let count = i32::try_from(rows.len())?;
    let most = rows.iter().map(|row| row.mails).fold(1.0, f64::max) * 1.1;
    let height = 80 + 28 * u32::try_from(rows.len())?;
    let area = SVGBackend::new(path, (SIZE.0, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            "Mails among which a mail hides; the mark: one over the share of right guesses",
            ("sans-serif", 16),
        )
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(250)
        .build_cartesian_2d(0.0..most, 0..count)?;
    let name = |place: &i32| {
        let place = usize::try_from(count - 1 - place).ok();
        place.and_then(|place| rows.get(place)).map(|row| row.name.clone()).unwrap_or_default()
    };
    chart.configure_mesh().disable_y_mesh().y_labels(rows.len()).y_label_formatter(&name).draw()?;
    for (row, place) in rows.iter().rev().zip(0..) {
        let bar =
            Rectangle::new([(0.0, place), (row.mails, place + 1)], COLOURS[0].mix(0.6).filled());
        chart.draw_series([bar])?;
        if row.hit > 0.0 {
            let at = (1.0 / row.hit).min(most);
            let mark = PathElement::new([(at, place), (at, place + 1)], BLACK.stroke_width(3));
            chart.draw_series([mark])?;
        }
    }
    area.present()?;
    Ok(())
}
