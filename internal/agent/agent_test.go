package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

const nonce = "0123456789abcdef01234567"

func TestOrderSurvivesTheEnvironment(t *testing.T) {
	for _, size := range []int{0, 10, orderSize, 3*orderSize + 7} {
		order := Order{Version: Version, Task: "t", Attempt: 2, Pod: "p", Nonce: nonce, Call: &Call{
			Function: "f", Arguments: map[string]json.RawMessage{"text": json.RawMessage(`"` + strings.Repeat("$é", size/3) + `"`)},
		}}
		vars, err := order.Env()
		if err != nil {
			t.Fatal(err)
		}
		environ := []string{"PATH=/bin", "BERTH_ORDER_X=kept"}
		for i := range vars { // in any order
			v := vars[len(vars)-1-i]
			if len(v.Name)+len(v.Value) > 128<<10 {
				t.Errorf("a variable of %d bytes: Linux takes 128 KiB", len(v.Value))
			}
			environ = append(environ, v.Name+"="+v.Value)
		}
		got, rest, err := ReadOrder(environ)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&order, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"PATH=/bin", "BERTH_ORDER_X=kept"}, rest); diff != "" {
			t.Error(diff)
		}
	}
}

func TestOrderIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		environ []string
		want    string
	}{
		"there is none":     {[]string{"A=b"}, "no order"},
		"a piece is gone":   {[]string{"BERTH_ORDER_0={", "BERTH_ORDER_2=}"}, "BERTH_ORDER_1 is missing"},
		"it is not JSON":    {[]string{"BERTH_ORDER_0=x"}, "can't be read"},
		"it is of a future": {[]string{`BERTH_ORDER_0={"version":99}`}, "version 99"},
	} {
		if _, _, err := ReadOrder(tt.environ); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	large := Order{Steps: []berth.Step{{Name: "a", Run: strings.Repeat("x", MaxOrder)}}}
	if _, err := large.Env(); berth.CodeOf(err) != berth.CodeInvalid {
		t.Errorf("an order that fits into no pod: %v", err)
	}
}

func TestTokensAreOfOneAttempt(t *testing.T) {
	keys := Keys("secret of a store")
	token := keys.Token("task", "berth-task-1")
	if !keys.Valid(token, "task", "berth-task-1") {
		t.Error("its own token is refused")
	}
	for _, other := range [][2]string{{"task", "berth-task-2"}, {"tas", "kberth-task-1"}, {"other", "berth-task-1"}} {
		if keys.Valid(token, other[0], other[1]) {
			t.Errorf("the token is good for %v too", other)
		}
	}
	if Keys("another").Valid(token, "task", "berth-task-1") || keys.Valid("", "task", "berth-task-1") {
		t.Error("a wrong token is accepted")
	}
}

func TestCompletionByMessage(t *testing.T) {
	c := &Completion{ExitCode: 0, Result: json.RawMessage(`{"sum":3}`)}
	message, block, err := EncodeMessage(c, 3<<10)
	if err != nil || block != nil {
		t.Fatalf("%v, block of %d bytes", err, len(block))
	}
	got, inLog, err := DecodeMessage(message)
	if err != nil || inLog != nil || string(got.Result) != `{"sum":3}` {
		t.Errorf("got %+v, %v, %v", got, inLog, err)
	}
	for _, text := range []string{"", "Killed", "{}", `{"berth":1}`, `[1]`} {
		if _, _, err := DecodeMessage([]byte(text)); err == nil {
			t.Errorf("%q is taken for a report", text)
		}
	}
}

// logOf writes output as a cluster gives it: a time before each line.
func logOf(output string) string {
	var out strings.Builder
	for i, line := range strings.SplitAfter(output, "\n") {
		if line != "" {
			fmt.Fprintf(&out, "2026-01-02T03:04:05.%09dZ %s", i, line)
		}
	}
	return out.String()
}

func TestCompletionOfUpToAMebibyteByLog(t *testing.T) {
	for _, size := range []int{4 << 10, frameSize, 1 << 20} {
		text := make([]byte, size)
		for i := range text {
			text[i] = "abcdefgh\\\"\n"[rand.N(11)]
		}
		result, _ := json.Marshal(string(text))
		message, block, err := EncodeMessage(&Completion{Result: result}, 3<<10)
		if err != nil || len(message) > 3<<10 {
			t.Fatalf("message of %d bytes, %v", len(message), err)
		}
		_, inLog, err := DecodeMessage(message)
		if err != nil || inLog == nil {
			t.Fatal(inLog, err)
		}
		frames := string(Frames(nonce, block))
		for line := range strings.Lines(frames) {
			if len(line) > 4096 {
				t.Fatalf("a frame of %d bytes: what is written at once to a pipe is 4096", len(line))
			}
		}
		output := "before\nno newline\n" + frames
		got, err := ReadBlock(strings.NewReader(logOf(output)), nonce, inLog)
		if err != nil || !bytes.Equal(got.Result, result) {
			t.Errorf("%d bytes: %v", size, err)
		}
		// A log whose beginning was read twice has the block twice, in part.
		if _, err := ReadBlock(strings.NewReader(logOf(frames[:strings.Index(frames, "\n")+1]+output)), nonce, inLog); err != nil {
			t.Errorf("%d bytes, after a piece that came before: %v", size, err)
		}
		if _, err := ReadBlock(strings.NewReader(logOf(output[:len(output)-20])), nonce, inLog); err == nil {
			t.Error("half a block is taken for a whole one")
		}
		if _, err := ReadBlock(strings.NewReader(logOf(output)), "another", inLog); err == nil {
			t.Error("frames of another nonce are taken")
		}
	}
}

func TestFilterHidesFramesAndKeepsAllElse(t *testing.T) {
	frame := func(n int) string { return "\n" + string(StepFrame(nonce, n)) }
	for name, tt := range map[string]struct{ output, want string }{
		"a newline that only parts":      {"a" + frame(1) + "b\n", "a\n!1\nb\n"},
		"output that ended its line":     {"a\n" + frame(1), "a\n!1\n"},
		"an empty line of the program":   {"a\n\n" + frame(2) + "b\n", "a\n\n!2\nb\n"},
		"empty lines without a frame":    {"\n\na\n\n", "\n\na\n\n"},
		"a result":                       {"a\n\n" + string(Frames(nonce, []byte("block"))), "a\n"},
		"a frame of another":             {string(StepFrame("ffff", 1)), string(StepFrame("ffff", 1))},
		"no newline at the end":          {"a\nb", "a\nb"},
		"what looks like a mark of ours": {"!step 3\n", "!step 3\n"},
	} {
		filtered, err := io.ReadAll(Filter(io.NopCloser(strings.NewReader(logOf(tt.output))), nonce, false))
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for line := range strings.Lines(string(filtered)) {
			if stamp, mark, ok := strings.Cut(line, "!step "); ok && !strings.Contains(stamp, " ") {
				got.WriteString("!" + mark)
				continue
			}
			_, content, _ := strings.Cut(line, " ")
			got.WriteString(content)
		}
		if got.String() != tt.want {
			t.Errorf("%s: got %q, want %q", name, got.String(), tt.want)
		}
	}
}

func TestFilterTellsTheStreamsApart(t *testing.T) {
	const stamp = "2026-01-02T03:04:05Z"
	err := string(StderrMark(nonce))
	for name, tt := range map[string]struct {
		log   string
		known bool
		want  string
	}{
		"where the agent marks them": {stamp + " " + string(StreamsFrame(nonce)) + stamp + " a\n" + stamp + " " + err + "b\n", false, stamp + "!streams\n" + stamp + ">a\n" + stamp + "^b\n"},
		"in a log that goes on":      {stamp + " a\n" + stamp + " " + err + "b\n", true, stamp + ">a\n" + stamp + "^b\n"},
		"that begins anew":           {stamp + " " + string(StreamsFrame(nonce)) + stamp + " a\n", true, stamp + "!streams\n" + stamp + ">a\n"},
		"an agent of before":         {stamp + " a\n", false, stamp + " a\n"},
		"a driver that knows them":   {stamp + "^a\n" + stamp + ">" + err + "b\n" + stamp + ">c\n", false, stamp + "^a\n" + stamp + "^b\n" + stamp + ">c\n"},
		"a mark in the middle":       {stamp + " a" + err + "b\n", true, stamp + ">a" + err + "b\n"},
		"a frame of a driver's":      {stamp + ">" + string(StepFrame(nonce, 2)), false, stamp + "!step 2\n"},
	} {
		got, readErr := io.ReadAll(Filter(io.NopCloser(strings.NewReader(tt.log)), nonce, tt.known))
		if readErr != nil || string(got) != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add([]byte("2026-01-02T03:04:05Z a\n2026-01-02T03:04:05Z \n2026-01-02T03:04:05Z " + string(StepFrame(nonce, 3))))
	f.Add([]byte("no time\n\n \n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		got, err := io.ReadAll(Filter(io.NopCloser(bytes.NewReader(log)), nonce, false))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(log, []byte(frameMark)) && !bytes.Equal(got, log) {
			t.Errorf("%q became %q", log, got)
		}
	})
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"task":"t","pod":"p","attempt":1,"events":[{"seq":1,"type":"Completed","completion":{"exitCode":0}}]}`))
	f.Add([]byte(`{"task":"t","pod":"p","attempt":1,"events":[{"seq":1,"type":"StepStarted","step":1,"status":{"name":"a"}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var r Report
		if json.Unmarshal(body, &r) != nil || !r.Valid() {
			return
		}
		for _, e := range r.Events {
			if e.Type == berth.EventCompleted && e.Completion == nil || e.Seq < 1 && e.Type != berth.EventHeartbeat {
				t.Errorf("%s is valid", body)
			}
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"berth":1,"completion":{"exitCode":3},"exitCode":3}`))
	f.Add([]byte(`{"berth":1,"inLog":{"size":-1,"sha256":""},"exitCode":3}`))
	f.Fuzz(func(t *testing.T, message []byte) {
		c, block, err := DecodeMessage(message)
		if err == nil && c == nil && block == nil {
			t.Error("neither a completion nor a block nor an error")
		}
		if block != nil {
			_, _ = ReadBlock(bytes.NewReader(message), nonce, block)
		}
	})
}

func TestUsageIsTakenAsItWasCounted(t *testing.T) {
	of := func(n int64) *int64 { return &n }
	cpu, none := 1.5, -1.5
	source := berth.UsageFromAgent
	for name, tt := range map[string]struct {
		told *Usage
		want *berth.AttemptUsage
	}{
		"an agent that counts nothing": {nil, nil},
		"a kernel that tells nothing":  {&Usage{}, nil},
		"all of it": {&Usage{CPUSeconds: &cpu, ThrottledSeconds: &cpu, MemoryBytes: of(1), MemoryPeakBytes: of(2)},
			&berth.AttemptUsage{Usage: berth.Usage{CPUSeconds: &cpu, MemoryPeakBytes: of(2), Source: &source}, ThrottledSeconds: &cpu}},
		"CPU alone":          {&Usage{CPUSeconds: &cpu}, &berth.AttemptUsage{Usage: berth.Usage{CPUSeconds: &cpu, Source: &source}}},
		"less than no CPU":   {&Usage{CPUSeconds: &none, MemoryPeakBytes: of(2)}, nil},
		"less than a byte":   {&Usage{CPUSeconds: &cpu, MemoryPeakBytes: of(-2)}, nil},
		"throttled backward": {&Usage{CPUSeconds: &cpu, ThrottledSeconds: &none}, nil},
	} {
		message, _, err := EncodeMessage(&Completion{Usage: tt.told}, 3<<10)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := DecodeMessage(message)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, c.Outcome(nil).Usage); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
