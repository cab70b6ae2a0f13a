package rpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/iotest"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
	"github.com/berth-run/berth/internal/rpc/berthv1/berthv1connect"
)

// files is a Service with one shared file.
type files struct {
	berth.Service
	content []byte
	gone    int // so many times it goes away when it has read what is put
}

func (f *files) PutData(_ context.Context, p berth.DataPut) (berth.DataEntry, error) {
	from, err := p.Open()
	if err != nil {
		return berth.DataEntry{}, err
	}
	defer from.Close()
	data, err := io.ReadAll(from)
	if err != nil {
		return berth.DataEntry{}, err
	}
	if f.gone--; f.gone >= 0 {
		_, err := p.Open() // with the next who serves
		return berth.DataEntry{}, err
	}
	f.content = data
	return berth.DataEntry{Path: "/data/" + p.Path, Size: int64(len(data)), Mode: "0640", Type: berth.DataFile}, nil
}

func (f *files) GetData(context.Context, berth.DataQuery) iter.Seq2[berth.DataChunk, error] {
	return func(yield func(berth.DataChunk, error) bool) {
		target := "there"
		if !yield(berth.DataChunk{Entry: &berth.DataEntry{Path: "/data/x", Type: berth.DataSymlink, UID: 7, GID: 8, Target: &target}}, nil) || !yield(berth.DataChunk{Data: f.content}, nil) {
			return
		}
		if f.gone--; f.gone >= 0 {
			yield(berth.DataChunk{}, errGone)
			return
		}
		yield(berth.DataChunk{End: &berth.DataEnd{Size: int64(len(f.content)), SHA256: "sum", Skipped: 3}}, nil)
	}
}

func (f *files) ListData(context.Context, berth.DataQuery) iter.Seq2[berth.DataEntry, error] {
	return func(yield func(berth.DataEntry, error) bool) {
		for i := range 2*entriesAtOnce + 1 {
			if !yield(berth.DataEntry{Size: int64(i)}, nil) {
				return
			}
		}
	}
}

func servedFiles(t *testing.T, f *files) (*Client, string) {
	t.Helper()
	_, handler := NewHandler(f, HandlerOptions{})
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return NewClient(server.Client(), server.URL, ""), server.URL
}

func opening(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// Files of any size go there and back over the wire.
func TestDataGoesThereAndBack(t *testing.T) {
	f := &files{}
	client, _ := servedFiles(t, f)
	for _, size := range []int{0, 1, dataAtOnce, 3*dataAtOnce + 1} {
		want := make([]byte, size)
		_, _ = rand.Read(want)
		entry, err := client.PutData(t.Context(), berth.DataPut{Path: "x", Open: opening(want)})
		if err != nil || entry.Path != "/data/x" || entry.Size != int64(size) || entry.Mode != "0640" || !bytes.Equal(f.content, want) {
			t.Fatalf("%d bytes: %+v, %v", size, entry, err)
		}
	}
	f.content = []byte("content")
	target := "there"
	want := []berth.DataChunk{
		{Entry: &berth.DataEntry{Path: "/data/x", Type: berth.DataSymlink, UID: 7, GID: 8, Target: &target}}, {Data: []byte("content")}, {End: &berth.DataEnd{Size: 7, SHA256: "sum", Skipped: 3}},
	}
	var got []berth.DataChunk
	for chunk, err := range client.GetData(t.Context(), berth.DataQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, chunk)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	listed := int64(0)
	for entry, err := range client.ListData(t.Context(), berth.DataQuery{}) {
		if err != nil || entry.Size != listed {
			t.Fatalf("%+v, %v", entry, err)
		}
		listed++
	}
	if listed != 2*entriesAtOnce+1 {
		t.Errorf("%d entries", listed)
	}
}

// What a client can't read to its end, or what came otherwise than it was sent,
// is not put.
func TestWhatDoesNotComeWholeIsNotPut(t *testing.T) {
	f := &files{content: []byte("before")}
	client, url := servedFiles(t, f)
	broken := errors.New("the disk here is gone")
	_, err := client.PutData(t.Context(), berth.DataPut{Path: "x", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(make([]byte, 2*dataAtOnce)), iotest.ErrReader(broken))), nil
	}})
	if !errors.Is(err, broken) {
		t.Errorf("the reader's own error is not told: %v", err)
	}
	raw := berthv1connect.NewBerthServiceClient(http.DefaultClient, url)
	for name, messages := range map[string][]*pb.PutDataRequest{
		"nothing":       nil,
		"no start":      {{Data: []byte("x")}},
		"no end":        {{Start: &pb.PutDataStart{Path: "x"}}, {Data: []byte("x")}},
		"another sum":   {{Start: &pb.PutDataStart{Path: "x"}}, {Data: []byte("x")}, {End: &pb.DataEnd{Size: 1, Sha256: "of something else"}}},
		"another count": {{Start: &pb.PutDataStart{Path: "x"}}, {End: &pb.DataEnd{Size: 1, Sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}},
	} {
		stream := raw.PutData(t.Context())
		for _, m := range messages {
			_ = stream.Send(m)
		}
		if _, err := stream.CloseAndReceive(); connect.CodeOf(err) != connect.CodeUnavailable && connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if string(f.content) != "before" {
		t.Errorf("%q was put", f.content)
	}
}

// A server that goes away while something is put is no loss where that can be
// read once more; what is got begins again by the caller's own will alone.
func TestDataOutlivesWhoServesIt(t *testing.T) {
	f := &files{gone: 2}
	client, _ := servedFiles(t, f)
	resuming := NewResuming(func(context.Context, berth.Service) (berth.Service, error) { return client, nil }, 0)
	if _, err := resuming.PutData(t.Context(), berth.DataPut{Path: "x", Open: opening([]byte("content"))}); err != nil || string(f.content) != "content" {
		t.Errorf("%q, %v", f.content, err)
	}
	once := false
	f.gone = 1
	if _, err := resuming.PutData(t.Context(), berth.DataPut{Path: "x", Open: func() (io.ReadCloser, error) {
		if once {
			return nil, errors.New("stdin can't be read twice")
		}
		once = true
		return io.NopCloser(bytes.NewReader(nil)), nil
	}}); err == nil || err.Error() != "stdin can't be read twice" {
		t.Errorf("from what can be read once: %v", err)
	}
	f.gone = 1
	var last error
	pieces := 0
	for chunk, err := range resuming.GetData(t.Context(), berth.DataQuery{}) {
		if chunk.Data != nil {
			pieces++
		}
		last = err
	}
	if berth.CodeOf(last) != berth.CodeUnavailable || pieces != 1 {
		t.Errorf("a read that was cut gave %d pieces, and %v", pieces, last)
	}
}
