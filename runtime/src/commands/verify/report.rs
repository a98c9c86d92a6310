//! The comparisons as a table for people, and the sentence about the first that is off.

use std::fmt;

use candle_core::{Result, Tensor};

use crate::tolerance::{Difference, FEW_TOKENS, Limit};

/// One comparison.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the quantity, as in the reference's files.
    pub quantity: &'static str,
    /// Shape, or number, of what was expected.
    pub shape: Vec<usize>,
    /// For tensors of equal shape.
    pub difference: Option<Difference>,
    /// What is asked of it.
    pub limit: String,
    /// Why it is off, as a sentence that begins with what is wrong.
    pub off: Option<String>,
}

/// All comparisons, in the order in which the parts run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was compared with what.
    pub title: String,
    /// The comparisons.
    pub rows: Vec<Row>,
    /// Further lines.
    pub notes: Vec<String>,
}

impl Report {
    /// Compares numbers that must be equal.
    pub fn equal<T: PartialEq + fmt::Display>(&mut self, quantity: &'static str, got: &[T], expected: &[T]) {
        let off = if got.len() == expected.len() {
            let differs = got.iter().zip(expected).position(|(got, expected)| got != expected);
            differs.map(|at| format!("number {at} is {}, and the reference has {}", got[at], expected[at]))
        } else {
            Some(format!("there are {}, and the reference has {}", got.len(), expected.len()))
        };
        self.rows.push(Row { quantity, shape: vec![expected.len()], difference: None, limit: "equal".to_owned(), off });
    }

    /// Compares tensors; gives the difference when their shapes are equal.
    ///
    /// # Errors
    /// Tensors that are not of f32.
    pub fn close(
        &mut self,
        quantity: &'static str,
        got: &Tensor,
        expected: &Tensor,
        limit: &Limit,
    ) -> Result<Option<Difference>> {
        let mut row =
            Row { quantity, shape: expected.dims().to_vec(), difference: None, limit: limit.to_string(), off: None };
        if got.dims() == expected.dims() {
            let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
            let difference = Difference::between(&flat(got)?, &flat(expected)?);
            (row.difference, row.off) = (Some(difference), difference.beyond(limit));
        } else {
            row.off = Some(format!("its shape is {:?}, and the reference's is {:?}", got.dims(), expected.dims()));
        }
        let difference = row.difference;
        self.rows.push(row);
        Ok(difference)
    }

    /// A comparison of `number` tokens that was judged where the reference is sure.
    pub fn judged(&mut self, quantity: &'static str, number: usize, off: Option<String>) {
        let limit = "equal where sure".to_owned();
        self.rows.push(Row { quantity, shape: vec![number], difference: None, limit, off });
    }

    /// Notes how many of an answer's tokens were compared.
    pub fn compared(&mut self, tokens: usize, total: usize) {
        let few = if (tokens as f64) < FEW_TOKENS * total as f64 {
            "; that is less than 25 % and says little: take a prompt whose answer the reference is surer of"
        } else {
            ""
        };
        self.notes.push(format!("tokens compared: {tokens} of {total}{few}"));
    }

    /// One sentence about the first quantity that is off, without full stop.
    pub fn first_off(&self) -> Option<String> {
        let row = self.rows.iter().find(|row| row.off.is_some())?;
        Some(format!("{} is off: {}", row.quantity, row.off.as_deref()?))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.title.is_empty() {
            writeln!(f, "{}", self.title)?;
        }
        if !self.rows.is_empty() {
            let [shape, max, mean] = ["shape", "max abs", "mean abs"];
            writeln!(f, "{:<16} {shape:<18} {max:>9} {mean:>9} {:>9}  {:<21} result", "quantity", "cosine", "limit")?;
        }
        for row in &self.rows {
            let [max, mean, cosine] = match &row.difference {
                Some(d) => [format!("{:.2e}", d.max_abs), format!("{:.2e}", d.mean_abs), format!("{:.7}", d.cosine)],
                None => ["-"; 3].map(str::to_owned),
            };
            let result = if row.off.is_some() { "OFF" } else { "ok" };
            let shape = format!("{:?}", row.shape);
            writeln!(f, "{:<16} {shape:<18} {max:>9} {mean:>9} {cosine:>9}  {:<21} {result}", row.quantity, row.limit)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "{note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tolerance::{PIXELS, logits};
    use candle_core::{DType, Device};

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_first_quantity_that_is_off_is_named() {
        let mut report = Report::default();
        report.equal("input_ids", &[1, 2], &[1, 2]);
        report.close("pixel_values", &tensor(&[1.0, 2.0]), &tensor(&[1.0, 2.0]), &PIXELS).unwrap();
        assert_eq!(report.first_off(), None);
        let limit = logits(DType::F32);
        let difference = report.close("logits_tail", &tensor(&[1.0, 2.1]), &tensor(&[1.0, 2.0]), &limit).unwrap();
        assert!((difference.unwrap().max_abs - 0.1).abs() < 1e-6);
        assert_eq!(report.close("step_logits", &tensor(&[1.0]), &tensor(&[1.0, 2.0]), &limit).unwrap(), None);
        report.equal("greedy_ids", &[7, 8], &[7, 9]);
        report.equal("image_tokens", &[4], &[4, 4]);
        let sentence = report.first_off().unwrap();
        assert!(sentence.starts_with("logits_tail is off: the largest difference is 1.000e-1"), "{sentence}");
        let all = report.to_string();
        assert_eq!(all.matches("OFF").count(), 4, "{all}");
        assert_eq!(all.matches(" ok\n").count(), 2, "{all}");
        let offs: Vec<_> = report.rows.iter().filter_map(|row| row.off.as_deref()).collect();
        assert_eq!(offs[1], "its shape is [1], and the reference's is [2]");
        assert_eq!(offs[2..], ["number 1 is 8, and the reference has 9", "there are 1, and the reference has 2"]);
    }

    #[test]
    fn few_compared_tokens_are_said_to_be_few() {
        let mut report = Report::default();
        report.compared(3, 12);
        report.compared(2, 12);
        assert_eq!(report.notes[0], "tokens compared: 3 of 12");
        assert!(report.notes[1].starts_with("tokens compared: 2 of 12; that is less than 25 %"));
    }
}
