package docker

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
)

// framed is a log as an Engine gives it: each text is a frame, of stderr where
// it begins with "!".
func framed(texts ...string) io.Reader {
	var out bytes.Buffer
	for _, text := range texts {
		stream := byte(1)
		if rest, ok := strings.CutPrefix(text, "!"); ok {
			stream, text = 2, rest
		}
		header := [8]byte{stream}
		binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
		out.Write(header[:])
		out.WriteString(text)
	}
	return &out
}

func TestFramesBecomeLines(t *testing.T) {
	tests := map[string]struct {
		frames []string
		want   string
	}{
		"nothing":                {nil, ""},
		"lines of both":          {[]string{"T1 a\n", "!T2 b\n", "T3 \n"}, "T1>a\nT2^b\nT3>\n"},
		"a line in parts":        {[]string{"T1 aaa", "T1 bbb", "T1 c\n", "T2 d\n"}, "T1>aaabbbc\nT2>d\n"},
		"no newline at the end":  {[]string{"T1 a\n", "T2 b"}, "T1>a\nT2>b"},
		"the other between":      {[]string{"T1 aaa", "!T2 x\n", "T1 bbb\n"}, "T1>aaa\nT2^x\nT1>bbb\n"},
		"parts of both":          {[]string{"T1 a", "!T2 x", "T1 b\n", "!T2 y\n"}, "T1>a\nT2^x\nT1>b\nT2^y\n"},
		"spaces in the content":  {[]string{"T1  a  b \n"}, "T1> a  b \n"},
		"a part that is a space": {[]string{"T1 a", "T1  ", "T1 b\n"}, "T1>a b\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := (&demultiplexer{w: &out}).copy(framed(test.frames...)); err != nil || out.String() != test.want {
				t.Errorf("%q, %v; want %q", out.String(), err, test.want)
			}
		})
	}
}

func TestWhatWasReadTwiceIsWrittenOnce(t *testing.T) {
	var out strings.Builder
	d := &demultiplexer{w: &out}
	if err := d.copy(framed("T1 a\n", "T2 b\n", "T2 c\n")); err != nil {
		t.Fatal(err)
	}
	d.again = d.same
	if err := d.copy(framed("T2 b\n", "T2 c\n", "T2 d\n", "T3 e")); err != nil {
		t.Fatal(err)
	}
	if want := "T1>a\nT2>b\nT2>c\nT2>d\nT3>e"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestWhatIsNoLogIsAnError(t *testing.T) {
	for name, data := range map[string]string{
		"a terminal's": "hello, this is no frame", "cut in the header": "\x01\x00\x00", "cut in the frame": "\x01\x00\x00\x00\x00\x00\x00\x09T1",
		"the Engine's own error": "\x03\x00\x00\x00\x00\x00\x00\x04oops", "too large": "\x01\x00\x00\x00\xff\xff\xff\xff",
	} {
		if err := (&demultiplexer{w: io.Discard}).copy(strings.NewReader(data)); err == nil {
			t.Errorf("%s is taken for a log", name)
		}
	}
}

func FuzzDemultiplex(f *testing.F) {
	data, _ := io.ReadAll(framed("T1 a", "!T2 b\n", "T1 c\n"))
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		if err := (&demultiplexer{w: &out}).copy(bytes.NewReader(data)); err == nil && out.Len() > 2*len(data) {
			t.Errorf("%d bytes became %d", len(data), out.Len())
		}
	})
}
