package berth

import (
	"strconv"
	"unicode/utf8"
)

// show quotes what a person wrote, shortened to what fits into a sentence.
func show(text string) string { return strconv.Quote(shorten(text)) }

func shorten(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "..."
}
