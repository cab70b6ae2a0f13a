package berth_test

import (
	"strings"
	"testing"

	"github.com/berth-run/berth"
)

func TestABlobIsReadAsItIsWritten(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for text, want := range map[string]berth.Blob{
		"blob:" + digest + "/table.csv":   {Digest: digest, Name: "table.csv"},
		"blob:" + digest + "/parts/":      {Digest: digest, Name: "parts", Directory: true},
		"blob:" + digest + "/a b:c\u00e9": {Digest: digest, Name: "a b:c\u00e9"},
	} {
		got, is := berth.ParseBlob(text)
		if !is || got != want || got.String() != text {
			t.Errorf("%s is %v, %+v, and written %s", text, is, got, got)
		}
	}
}

// What is no blob is a path, and must not lead anywhere as one.
func TestWhatIsNoBlob(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for _, text := range []string{
		"", "/data/x", "blob:", "blob:x", "blob:" + digest, "blob:" + digest + "/", "blob:" + digest + "//", "blob:" + digest + "/..", "blob:" + digest + "/../",
		"blob:" + digest + "/a/b", "blob:" + digest + "/a\x00", "blob:sha256:" + strings.Repeat("0A", 32) + "/a", "blob:sha256:0a/a", "blob:sha512:" + strings.Repeat("0a", 32) + "/a",
		"blob:" + digest + "/" + strings.Repeat("n", 256), digest + "/a",
	} {
		if got, is := berth.ParseBlob(text); is {
			t.Errorf("%q is the blob %+v", text, got)
		}
	}
}

func FuzzParseBlob(f *testing.F) {
	f.Add("blob:sha256:" + strings.Repeat("0a", 32) + "/table.csv")
	f.Fuzz(func(t *testing.T, text string) {
		if b, is := berth.ParseBlob(text); is && (b.String() != text || strings.Contains(b.Name, "/")) {
			t.Errorf("%q is %+v", text, b)
		}
	})
}
