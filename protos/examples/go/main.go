// Detects the persons in one image and prints where each nose is.
//
// Usage: go run . [IMAGE]; the address of the service is POSEGATE_ADDRESS. The stubs in ./posegatepb are
// generated first, see protos/README.md.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "example.com/posegate-detect/posegatepb"
)

const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{"service": "posegate.v1.PoseService"}],
    "retryPolicy": {
      "maxAttempts": 4,
      "initialBackoff": "0.1s",
      "maxBackoff": "2s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
    }
  }]
}`

func main() {
	address := os.Getenv("POSEGATE_ADDRESS")
	if address == "" {
		address = "127.0.0.1:50051"
	}
	path := "../../../tests/data/two_people.jpg"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	if err := detect(address, path); err != nil {
		log.Fatal(err)
	}
}

func detect(address, path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(
		address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(
			grpc.MaxRetryRPCBufferSize(64<<20), // 256 KiB otherwise, and larger images are not retried
			grpc.MaxCallRecvMsgSize(256<<20),
			grpc.MaxCallSendMsgSize(256<<20),
		),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	response, err := pb.NewPoseServiceClient(connection).DetectPoses(ctx, &pb.DetectPosesRequest{
		Image: &pb.Image{Source: &pb.Image_Content{Content: content}},
	})
	if err != nil {
		return err
	}
	for _, person := range response.GetPersons() {
		nose := person.GetKeypoints()[0]
		fmt.Printf("person %.2f: nose at (%.0f, %.0f)\n", person.GetScore(), nose.GetX(), nose.GetY())
	}
	return nil
}
