package cli

import (
	"encoding/json"
	"testing"
)

func TestResultsAreShownAsTheyWereGiven(t *testing.T) {
	for _, value := range []string{`{"a":"<b> & c"}`, `{"a":"\\u003c"}`, `["\\\\u0026","&","\u00e9","\n\""]`, `5`, `null`} {
		stored, err := json.Marshal(json.RawMessage(value)) // as the store does
		if err != nil {
			t.Fatal(err)
		}
		if got := string(plain(stored)); got != value && value != "null" {
			t.Errorf("%s is stored as %s and shown as %s", value, stored, got)
		}
	}
	if got := string(plain(json.RawMessage(`"a \u003c b"`))); got != "a < b" {
		t.Errorf("a string is shown as %s", got)
	}
}
