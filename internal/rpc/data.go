package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"iter"

	"connectrpc.com/connect"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
)

// entriesAtOnce is how many entries of a list go together.
const entriesAtOnce = 256

// dataAtOnce is how much of a content goes together.
const dataAtOnce = 512 << 10

func fromEntry(e *berth.DataEntry) *pb.DataEntry {
	return &pb.DataEntry{Path: e.Path, Type: string(e.Type), Size: e.Size, Mode: e.Mode, Uid: int32(e.UID), Gid: int32(e.GID), ModifiedAt: fromTime(e.ModifiedAt), Target: e.Target}
}

func toEntry(e *pb.DataEntry) berth.DataEntry {
	return berth.DataEntry{Path: e.GetPath(), Type: berth.DataType(e.GetType()), Size: e.GetSize(), Mode: e.GetMode(), UID: int(e.GetUid()), GID: int(e.GetGid()), ModifiedAt: toTime(e.GetModifiedAt()), Target: e.Target}
}

func (c *Client) ListData(ctx context.Context, q berth.DataQuery) iter.Seq2[berth.DataEntry, error] {
	return func(yield func(berth.DataEntry, error) bool) {
		request := &pb.ListDataRequest{Infrastructure: q.Infrastructure, Path: q.Path, Recursive: q.Recursive}
		for entries, err := range receive(ctx, c.rpc.ListData, request, (*pb.ListDataResponse).GetEntries) {
			if err != nil {
				yield(berth.DataEntry{}, err)
				return
			}
			for _, e := range entries {
				if !yield(toEntry(e), nil) {
					return
				}
			}
		}
	}
}

func (c *Client) GetData(ctx context.Context, q berth.DataQuery) iter.Seq2[berth.DataChunk, error] {
	request := &pb.GetDataRequest{Infrastructure: q.Infrastructure, Path: q.Path, Recursive: q.Recursive}
	return receive(ctx, c.rpc.GetData, request, func(m *pb.GetDataResponse) berth.DataChunk {
		chunk := berth.DataChunk{Data: m.GetData()}
		if m.GetEntry() != nil {
			entry := toEntry(m.GetEntry())
			chunk.Entry = &entry
		}
		if end := m.GetEnd(); end != nil {
			chunk.End = &berth.DataEnd{Size: end.GetSize(), SHA256: end.GetSha256(), Skipped: int(end.GetSkipped())}
		}
		return chunk
	})
}

func (c *Client) PutData(ctx context.Context, p berth.DataPut) (berth.DataEntry, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	content, err := p.Open()
	if err != nil {
		return berth.DataEntry{}, err
	}
	defer content.Close()
	stream := c.rpc.PutData(ctx)
	send := func(m *pb.PutDataRequest) error { return stream.Send(m) }
	err = send(&pb.PutDataRequest{Start: &pb.PutDataStart{Infrastructure: p.Infrastructure, Path: p.Path, Name: p.Name, Mode: p.Mode, Directory: p.Directory}})
	sum, size, buffer := sha256.New(), int64(0), make([]byte, dataAtOnce)
	for err == nil {
		n, readErr := io.ReadFull(content, buffer)
		if n > 0 {
			sum.Write(buffer[:n])
			size += int64(n)
			err = send(&pb.PutDataRequest{Data: buffer[:n]})
		}
		if readErr == io.EOF || readErr == io.ErrUnexpectedEOF { //nolint:errorlint // of ReadFull itself
			if err == nil {
				err = send(&pb.PutDataRequest{End: &pb.DataEnd{Size: size, Sha256: hex.EncodeToString(sum.Sum(nil))}})
			}
			break
		}
		if readErr != nil {
			return berth.DataEntry{}, readErr // the stream ends without its sum, and nothing is put
		}
	}
	// What keeps from sending more is told by the answer.
	response, answer := stream.CloseAndReceive()
	if answer != nil {
		return berth.DataEntry{}, fromWire(ctx, answer)
	}
	if err != nil {
		return berth.DataEntry{}, fromWire(ctx, err)
	}
	return toEntry(response.Msg.GetEntry()), nil
}

func (c *Client) RemoveData(ctx context.Context, q berth.DataQuery) error {
	_, err := call(ctx, c.rpc.RemoveData, &pb.RemoveDataRequest{Infrastructure: q.Infrastructure, Path: q.Path, Recursive: q.Recursive}, func(*pb.RemoveDataResponse) struct{} { return struct{}{} })
	return err
}

func (s *server) ListData(ctx context.Context, r *connect.Request[pb.ListDataRequest], stream *connect.ServerStream[pb.ListDataResponse]) error {
	batch := &pb.ListDataResponse{}
	for entry, err := range s.service.ListData(ctx, berth.DataQuery{Infrastructure: r.Msg.GetInfrastructure(), Path: r.Msg.GetPath(), Recursive: r.Msg.GetRecursive()}) {
		if err != nil {
			return toWire(err)
		}
		batch.Entries = append(batch.Entries, fromEntry(&entry))
		if len(batch.GetEntries()) == entriesAtOnce {
			if err := stream.Send(batch); err != nil {
				return err
			}
			batch = &pb.ListDataResponse{}
		}
	}
	return stream.Send(batch)
}

func (s *server) GetData(ctx context.Context, r *connect.Request[pb.GetDataRequest], stream *connect.ServerStream[pb.GetDataResponse]) error {
	for chunk, err := range s.service.GetData(ctx, berth.DataQuery{Infrastructure: r.Msg.GetInfrastructure(), Path: r.Msg.GetPath(), Recursive: r.Msg.GetRecursive()}) {
		if err != nil {
			return toWire(err)
		}
		message := &pb.GetDataResponse{Data: chunk.Data}
		if chunk.Entry != nil {
			message.Entry = fromEntry(chunk.Entry)
		}
		if end := chunk.End; end != nil {
			message.End = &pb.DataEnd{Size: end.Size, Sha256: end.SHA256, Skipped: int32(end.Skipped)}
		}
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) PutData(ctx context.Context, stream *connect.ClientStream[pb.PutDataRequest]) (*connect.Response[pb.PutDataResponse], error) {
	if !stream.Receive() || stream.Msg().GetStart() == nil {
		if err := stream.Err(); err != nil {
			return nil, err
		}
		return nil, toWire(berth.Errorf(berth.CodeInvalid, "the first message of PutData says what is put (start)"))
	}
	start := stream.Msg().GetStart()
	opened := false
	entry, err := s.service.PutData(ctx, berth.DataPut{
		Infrastructure: start.GetInfrastructure(), Path: start.GetPath(), Name: start.GetName(), Mode: start.GetMode(), Directory: start.GetDirectory(),
		Open: func() (io.ReadCloser, error) {
			if opened {
				return nil, berth.Errorf(berth.CodeUnavailable, "%w: what was sent can't be sent once more from here", berth.ErrEnding)
			}
			opened = true
			return io.NopCloser(&received{stream: stream, sum: sha256.New()}), nil
		},
	})
	if err != nil {
		return nil, toWire(err)
	}
	return connect.NewResponse(&pb.PutDataResponse{Entry: fromEntry(&entry)}), nil
}

func (s *server) RemoveData(ctx context.Context, r *connect.Request[pb.RemoveDataRequest]) (*connect.Response[pb.RemoveDataResponse], error) {
	err := s.service.RemoveData(ctx, berth.DataQuery{Infrastructure: r.Msg.GetInfrastructure(), Path: r.Msg.GetPath(), Recursive: r.Msg.GetRecursive()})
	return connect.NewResponse(&pb.RemoveDataResponse{}), toWire(err)
}

// received reads what a client puts. It ends where the client says that this is
// the end, and that is true; anything else is an error.
type received struct {
	stream *connect.ClientStream[pb.PutDataRequest]
	sum    hash.Hash
	size   int64
	left   []byte
	err    error
}

func (r *received) Read(p []byte) (int, error) {
	for len(r.left) == 0 && r.err == nil {
		r.err = r.next()
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	if n == 0 && len(p) > 0 {
		return 0, r.err
	}
	return n, nil
}

func (r *received) next() error {
	if !r.stream.Receive() {
		err := r.stream.Err()
		if err == nil {
			err = errors.New("it ended without its sum")
		}
		return berth.Errorf(berth.CodeUnavailable, "what is put did not come whole, and nothing was changed: %w", err)
	}
	message := r.stream.Msg()
	if end := message.GetEnd(); end != nil {
		if end.GetSize() != r.size || end.GetSha256() != hex.EncodeToString(r.sum.Sum(nil)) {
			return berth.Errorf(berth.CodeUnavailable, "what is put came changed, and nothing was changed: %d bytes of %d", r.size, end.GetSize())
		}
		return io.EOF
	}
	r.left = message.GetData()
	r.size += int64(len(r.left))
	r.sum.Write(r.left)
	return nil
}

func (r *Resuming) ListData(ctx context.Context, q berth.DataQuery) iter.Seq2[berth.DataEntry, error] {
	return unlessBegun(ctx, r, func(s berth.Service) iter.Seq2[berth.DataEntry, error] { return s.ListData(ctx, q) })
}

func (r *Resuming) GetData(ctx context.Context, q berth.DataQuery) iter.Seq2[berth.DataChunk, error] {
	return unlessBegun(ctx, r, func(s berth.Service) iter.Seq2[berth.DataChunk, error] { return s.GetData(ctx, q) })
}

// unlessBegun goes over to the next server as long as nothing was yielded: what
// is behind that may have changed meanwhile.
func unlessBegun[T any](ctx context.Context, r *Resuming, open func(berth.Service) iter.Seq2[T, error]) iter.Seq2[T, error] {
	begun := false
	return sequence(ctx, r, func(s berth.Service) iter.Seq2[T, error] {
		return func(yield func(T, error) bool) {
			for value, err := range open(s) {
				if begun && errors.Is(err, ErrGone) {
					err = berth.Errorf(berth.CodeUnavailable, "it broke off, as the server went away: begin again")
				}
				if !yield(value, err) {
					return
				}
			}
		}
	}, func(T) { begun = true })
}

func (r *Resuming) PutData(ctx context.Context, p berth.DataPut) (berth.DataEntry, error) {
	return do(ctx, r, func(s berth.Service) (berth.DataEntry, error) { return s.PutData(ctx, p) })
}

func (r *Resuming) RemoveData(ctx context.Context, q berth.DataQuery) error {
	tried := false
	return tell(ctx, r, func(s berth.Service) error {
		err := s.RemoveData(ctx, q)
		if tried && berth.CodeOf(err) == berth.CodeNotFound {
			return nil // the server that went away had done it
		}
		tried = true
		return err
	})
}
