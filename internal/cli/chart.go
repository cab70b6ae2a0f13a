package cli

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// chart draws something that changes over time, as blocks.
type chart struct {
	title  string
	from   time.Time
	to     time.Time
	points []point              // in order of time
	mark   float64              // drawn as a line where it fits; 0: none
	label  func(float64) string // of the vertical axis
	width  int                  // columns in all
	height int                  // rows of blocks
}

// point is a value that holds from the point before until its time.
type point struct {
	at    time.Time
	value float64
}

var blocks = []rune(" ▁▂▃▄▅▆▇█")

// draw returns the chart's lines: blocks for values, and a dotted line for the
// mark, unless it is so far above them that nothing of them could be seen.
func (c *chart) draw() string {
	top := 0.0
	for _, p := range c.points {
		top = max(top, p.value)
	}
	const room = 4 // the mark may be this many times the highest value
	marked := c.mark > 0 && c.mark <= room*top
	if marked {
		top = max(top, c.mark)
	}
	if top == 0 {
		top = 1
	}
	labels := make([]string, c.height)
	labels[0], labels[c.height-1] = c.label(top), c.label(0)
	markRow := -1
	if marked {
		markRow = c.height - 1 - min(c.height-1, int(c.mark/top*float64(c.height)))
		labels[markRow] = c.label(c.mark)
	}
	margin := 0
	for _, l := range labels {
		margin = max(margin, utf8.RuneCountInString(l))
	}
	columns := max(10, c.width-margin-3)
	values := c.columns(columns)

	var out strings.Builder
	fmt.Fprintln(&out, c.title)
	for row := range c.height {
		fmt.Fprintf(&out, "%*s ┤", margin+1, labels[row])
		line := make([]rune, columns)
		for i, v := range values {
			// Eighths of a row that are filled, above what is below this row.
			eighths := int(math.Round(v/top*float64(8*c.height))) - 8*(c.height-1-row)
			line[i] = blocks[min(8, max(0, eighths))]
			if v > 0 && row == c.height-1 && eighths < 1 {
				line[i] = blocks[1] // little is not nothing
			}
			if row == markRow && line[i] == ' ' {
				line[i] = '┄'
			}
		}
		fmt.Fprintln(&out, strings.TrimRight(string(line), " "))
	}
	fmt.Fprintf(&out, "%*s └%s\n", margin+1, "", strings.Repeat("─", columns))
	from, to := c.from.UTC().Format("15:04:05"), c.to.UTC().Format("15:04:05Z")
	fmt.Fprintf(&out, "%*s  %s%*s\n", margin+1, "", from, columns-len(from), to)
	return out.String()
}

// columns spreads the points over columns: the highest of those that fall into
// one; where none does, the next one's, which tells of the time before it.
func (c *chart) columns(n int) []float64 {
	values := make([]float64, n)
	span := c.to.Sub(c.from)
	if span <= 0 || len(c.points) == 0 {
		return values
	}
	began := 0
	for _, p := range c.points {
		last := int(math.Ceil(float64(p.at.Sub(c.from))/float64(span)*float64(n))) - 1
		last = min(n-1, max(0, last))
		for i := min(began, last); i <= last; i++ {
			values[i] = max(values[i], p.value)
		}
		began = last + 1
	}
	return values
}
