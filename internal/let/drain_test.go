package let

import (
	"io"
	"os"
	"strings"
	"testing"
)

func pipe(t *testing.T) (*drain, *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close(); writer.Close() })
	return &drain{file: reader}, writer
}

func TestWhatWasWrittenBeforeTheFinishIsReadHoweverLateThatIs(t *testing.T) {
	t.Parallel()
	d, writer := pipe(t)
	text := strings.Repeat("x", 60_000)
	if _, err := writer.WriteString(text); err != nil {
		t.Fatal(err)
	}
	d.finish() // and the writer stays open
	if got, err := io.ReadAll(d); err != nil || string(got) != text {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestAReadThatWaitsEndsWithTheFinish(t *testing.T) {
	t.Parallel()
	d, writer := pipe(t)
	if _, err := writer.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	first, all := make(chan struct{}), make(chan string)
	go func() {
		b := make([]byte, 1)
		_, _ = d.Read(b)
		close(first)
		rest, err := io.ReadAll(d)
		if err != nil {
			t.Error(err)
		}
		all <- string(b) + string(rest)
	}()
	<-first
	d.finish()
	if got := <-all; got != "x" {
		t.Errorf("got %q", got)
	}
}

func TestAfterTheFinishNoMoreIsReadThanThePipeHeld(t *testing.T) {
	t.Parallel()
	d, writer := pipe(t)
	go func() {
		for err := error(nil); err == nil; _, err = writer.WriteString(strings.Repeat("x", 4096)) {
		}
	}()
	d.finish()
	if got, err := io.ReadAll(d); err != nil || len(got) > 64<<10 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestOutputThatEndsIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	d, writer := pipe(t)
	go func() {
		for range 100 {
			_, _ = writer.WriteString(strings.Repeat("x", 4096))
		}
		writer.Close()
	}()
	if got, err := io.ReadAll(d); err != nil || len(got) != 409_600 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
