package berth

import (
	"slices"
	"strings"
	"testing"
)

func TestParseIndices(t *testing.T) {
	for text, want := range map[string][]int{
		"0": {0}, "0-3": {0, 1, 2, 3}, "1,5,9": {1, 5, 9}, "0-10:5": {0, 5, 10}, "0-9:4,20": {0, 4, 8, 20}, "7-7": {7}, "1, 2": {1, 2},
	} {
		if got, err := ParseIndices(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for text, says := range map[string]string{
		"": "not a number", "x": `"x" is not a number`, "-1": "not a number", "3-1": "ends (1) before it begins (3)", "0-3:0": "step", "5:2": "step",
		"1,1": "named twice", "5,3": "ascending", "0-99999999": "100000", "0-9999999999": "not a number", "0-99999,100000": "100000", "1,,2": "not a number",
	} {
		if got, err := ParseIndices(text); err == nil || !strings.Contains(err.Error(), says) || CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzParseIndices(f *testing.F) {
	f.Add("0-9:2,30")
	f.Fuzz(func(t *testing.T, text string) {
		indices, err := ParseIndices(text)
		if err == nil && (len(indices) == 0 || len(indices) > MaxArray || !slices.IsSorted(indices)) {
			t.Errorf("%q gave %d indices", text, len(indices))
		}
	})
}

func TestASpecIsMadeForEachItem(t *testing.T) {
	spec := TaskSpec{
		Image: "i", Args: []string{"--seed={index}", "{item}{item}"}, Env: []EnvVar{{"A", "x{index}"}},
		Steps: []Step{{Name: "s", Run: "echo {item}", Command: []string{"{index}"}}},
	}
	got := spec.ForItem(ArrayItem{ID: "a-1", Index: 4, Item: "{index} $HOME"})
	if got.Args[0] != "--seed=4" || got.Args[1] != "{index} $HOME{index} $HOME" || got.Env[0].Value != "x4" || got.Steps[0].Run != "echo {index} $HOME" || got.Steps[0].Command[0] != "4" {
		t.Errorf("%+v", got)
	}
	if len(got.Env) != 4 || got.Env[3].Value != "{index} $HOME" || spec.Args[0] != "--seed={index}" || len(spec.Env) != 1 || spec.Steps[0].Run != "echo {item}" {
		t.Errorf("the environment is %v, the spec itself %+v", got.Env, spec)
	}
}
